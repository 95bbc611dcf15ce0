#!/bin/sh
# Sends a photo to a Livery endpoint with curl and jq, waits, and prints the SVG.
#
#   RUNPOD_API_KEY=… clients/curl.sh https://api.runpod.ai/v2/ENDPOINT car.jpg '{"detail": 0.7}' > car.svg
set -eu
url=$1 photo=$2
fields=${3:-"{}"}
limit=10000000

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# The key stays out of the list of processes.
printf 'header = "Authorization: Bearer %s"\n' "${RUNPOD_API_KEY:-}" > "$scratch/key"

base64 < "$photo" | tr -d '\n' > "$scratch/image"
jq -n --argjson fields "$fields" --rawfile image "$scratch/image" '{input: ($fields + {image: $image})}' > "$scratch/body"
size=$(wc -c < "$scratch/body")
if [ "$size" -gt "$limit" ]; then
  echo "error: the request takes $size bytes and /run takes $limit; use a smaller photo, or image_url" >&2
  exit 1
fi

# --retry knows 408, 429, 500, 502, 503 and 504, grows its pauses and heeds Retry-After.
ask() { curl --silent --show-error --fail-with-body --retry 4 --max-time 120 --config "$scratch/key" "$@"; }

id=$(ask --header 'Content-Type: application/json' --data-binary "@$scratch/body" "$url/run" | jq --raw-output .id)
while :; do
  ask "$url/status/$id" > "$scratch/answer"
  case $(jq --raw-output .status "$scratch/answer") in
    IN_QUEUE | IN_PROGRESS)
      jq --raw-output '"\(.status) \(.output.phase? // "") \(.output.percent? // 0) %"' "$scratch/answer" >&2
      sleep 1
      ;;
    COMPLETED)
      jq --raw-output .output.svg "$scratch/answer"
      exit 0
      ;;
    *)
      jq --raw-output '"error: \(.error // .status)"' "$scratch/answer" >&2
      exit 1
      ;;
  esac
done
