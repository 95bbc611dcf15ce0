// How things are said.

/** With a capital in front. */
export function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
