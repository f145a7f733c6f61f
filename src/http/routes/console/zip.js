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

/** The names of a zip's files that are executable, from the central directory (APPNOTE.TXT, 4.3.12). */
function executables(zip) {
  const view = new DataView(zip);
  const found = new Set();
  let end = zip.byteLength - 22;
  while (end > 0 && view.getUint32(end, true) !== 0x06054b50) end -= 1;
  let at = end > 0 ? view.getUint32(end + 16, true) : zip.byteLength;
  while (at + 46 <= zip.byteLength && view.getUint32(at, true) === 0x02014b50) {
    const length = view.getUint16(at + 28, true);
    const isUnix = view.getUint8(at + 5) === 3;
    const name = new TextDecoder().decode(new Uint8Array(zip, at + 46, length));
    if (isUnix && (view.getUint32(at + 38, true) >>> 16) & 0o111) found.add(name);
    at += 46 + length + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
  }
  return found;
}

/** The files of a zip, each with its name, and its text or its bytes. */
export function filesOf(zip) {
  const all = Object.entries(unzipSync(new Uint8Array(zip))).filter(([name]) => !name.endsWith("/"));
  const executable = executables(zip);
  return all.map(([name, bytes]) => {
    const text = textOf(bytes);
    const isExecutable = executable.has(name);
    return text === null ? { name, bytes, isExecutable } : { name, text, isExecutable };
  });
}

/** A zip of files. */
export function zipOf(files) {
  const entries = files.map((file) => {
    const mode = file.isExecutable ? 0o100755 : 0o100644;
    return [file.name, [file.bytes ?? strToU8(file.text), { os: 3, attrs: mode << 16 }]];
  });
  return new Blob([zipSync(Object.fromEntries(entries))], { type: "application/zip" });
}
