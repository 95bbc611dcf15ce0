// A photo from a file: checked, measured, and made smaller where one request can't hold it.

const KINDS = ["image/jpeg", "image/png", "image/webp"];
const MOST_BYTES = 7_000_000; // base64 makes a third more of it, and a request holds 10 MB
const REDUCED_PX = 4096;
const REDUCED_QUALITY = 0.92;

/**
 * @typedef {{blob: Blob, url: string, width: number, height: number, stem: string, note: string}} Photo
 * Sizes in pixels of the upright photo; `note` says what was done to it, in a sentence.
 */

/**
 * @param {Blob} blob
 * @param {string} name of the file.
 * @returns {Promise<Photo>}
 * @throws {Error} with a sentence for the user.
 */
export async function readPhoto(blob, name) {
  if (!KINDS.includes(blob.type)) throw new Error(`${name} is not a JPEG, PNG or WebP.`);
  const stem = name.replace(/\.[^.]*$/, "") || "photo";
  const picture = await decoded(blob, name);
  if (blob.size <= MOST_BYTES) {
    return { blob, url: picture.src, width: picture.naturalWidth, height: picture.naturalHeight, stem, note: "" };
  }
  const reduced = await smaller(picture);
  URL.revokeObjectURL(picture.src);
  const { src: url, naturalWidth: width, naturalHeight: height } = await decoded(reduced, name);
  const note = `The photo has ${(blob.size / 1e6).toFixed(1)} MB, more than one request holds; it is sent as a JPEG of `
    + `${width} × ${height} px.`;
  return { blob: reduced, url, width, height, stem, note };
}

async function decoded(blob, name) {
  const picture = new Image();
  picture.src = URL.createObjectURL(blob);
  try {
    await picture.decode();
  } catch {
    URL.revokeObjectURL(picture.src);
    throw new Error(`${name} is damaged, or not the kind of picture that its name says.`);
  }
  return picture;
}

function smaller(picture) {
  const scale = Math.min(1, REDUCED_PX / Math.max(picture.naturalWidth, picture.naturalHeight));
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(picture.naturalWidth * scale);
  canvas.height = Math.round(picture.naturalHeight * scale);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => { canvas.toBlob(resolve, "image/jpeg", REDUCED_QUALITY); });
}
