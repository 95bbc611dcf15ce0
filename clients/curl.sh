#!/bin/sh
# Sends a photo to a Livery endpoint with curl and jq, waits, and prints the SVG.
#
#   RUNPOD_API_KEY=… clients/curl.sh https://api.runpod.ai/v2/ENDPOINT car.jpg '{"detail": 0.7}' > car.svg
set -eu
url=$1 photo=$2
fields=${3:-"{}"}
limit=10000000

fail() {
  echo "error: $1" >&2
  exit 1
}

if [ -n "${RUNPOD_API_KEY:-}" ]; then
  case $url in
    *@*) fail "the key is not sent to an address with a user in it" ;;
    https://* | http://127.0.0.1[:/]* | http://localhost[:/]*) ;;
    *) fail "the key is not sent over plain http to another machine" ;;
  esac
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# The key stays out of the list of processes.
printf 'header = "Authorization: Bearer %s"\n' "${RUNPOD_API_KEY:-}" > "$scratch/key"

base64 < "$photo" | tr -d '\n' > "$scratch/image"
jq -n --argjson fields "$fields" --rawfile image "$scratch/image" '{input: ($fields + {image: $image})}' > "$scratch/body"
size=$(wc -c < "$scratch/body")
[ "$size" -le "$limit" ] || fail "the request takes $size bytes and /run takes $limit; use a smaller photo, or image_url"

ask() { curl --silent --show-error --max-time 120 --config "$scratch/key" --output "$scratch/answer" "$@"; }

# An answer that refuses the job lets it be sent again; where none came the job may run already, and it costs money.
for pause in 1 2 4 8 0; do
  code=$(ask --write-out '%{http_code}' --header 'Content-Type: application/json' --data-binary "@$scratch/body" "$url/run") \
    || fail "the connection broke while the job was sent; it may run all the same"
  case $code in
    2??) break ;;
    429 | 500 | 502 | 503 | 504) [ "$pause" = 0 ] || { sleep "$pause" && continue; } ;;
  esac
  fail "HTTP $code: $(cat "$scratch/answer")"
done

id=$(jq --raw-output .id "$scratch/answer")
while :; do
  # --retry knows 408, 429, 500, 502, 503 and 504, grows its pauses and heeds Retry-After.
  ask --fail-with-body --retry 4 "$url/status/$id" || fail "$(cat "$scratch/answer")"
  case $(jq --raw-output .status "$scratch/answer") in
    IN_QUEUE | IN_PROGRESS)
      jq --raw-output '"\(.status) \(.output.phase? // "") \(.output.percent? // 0) %"' "$scratch/answer" >&2
      sleep 1
      ;;
    COMPLETED)
      jq --exit-status '.output.svg != null' "$scratch/answer" > /dev/null \
        || fail "the reply holds no SVG: it lies behind a link in output.files, or output.formats leaves it out"
      jq --join-output .output.svg "$scratch/answer"
      exit 0
      ;;
    *)
      fail "$(jq --raw-output '.error // .status' "$scratch/answer")"
      ;;
  esac
done
