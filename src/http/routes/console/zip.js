// Zips: the files of a version, and a zip of files that a person has written.

import { strToU8, unzipSync, zipSync } from "/console/editor.js";

/** A file that is longer is kept as it is, and not shown for editing. */
const MOST = 512 * 1024;

/** The text of a file; null for a file that is no text, or too long to be edited. */
function textOf(bytes) {
  if (bytes.length > MOST) return null;
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    return text.includes("\0") ? null : text;
  } catch {
    return null;
  }
}

/** The files of a zip, each with its name, and its text or its bytes. */
export function filesOf(zip) {
  const all = Object.entries(unzipSync(new Uint8Array(zip))).filter(([name]) => !name.endsWith("/"));
  return all.map(([name, bytes]) => {
    const text = textOf(bytes);
    return text === null ? { name, bytes } : { name, text };
  });
}

/** A zip of files. */
export function zipOf(files) {
  const entries = files.map((file) => [file.name, file.bytes ?? strToU8(file.text)]);
  return new Blob([zipSync(Object.fromEntries(entries))], { type: "application/zip" });
}
