// Says where a Chromium is that came as a package of npm, after unpacking it: node unpack.mjs FOLDER, a folder in which
// @sparticuz/chromium is installed. Prints the program's path, and on a second line a folder with libraries for it.

import { createRequire } from "node:module";
import { existsSync, mkdirSync, renameSync, rmSync, copyFileSync, chmodSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const folder = resolve(process.argv[2]);
const into = join(folder, "unpacked");
// It unpacks into the system's folder for temporary files.
process.env.TMPDIR = join(folder, "tmp");
mkdirSync(process.env.TMPDIR, { recursive: true });
const entry = createRequire(join(folder, "package.json")).resolve("@sparticuz/chromium");
const { default: chromium, inflate } = await import(pathToFileURL(entry));
const program = join(into, "chromium");
if (!existsSync(program)) {
  mkdirSync(into, { recursive: true });
  const unpacked = await chromium.executablePath();
  copyFileSync(unpacked, program + ".partial");
  chmodSync(program + ".partial", 0o755);
  renameSync(program + ".partial", program);
  rmSync(unpacked, { force: true });
}
const libraries = join(into, "libraries");
if (!existsSync(libraries) && inflate) {
  const packed = join(entry.slice(0, entry.lastIndexOf("@sparticuz/chromium") + 19), "bin", "al2023.tar.br");
  const unpacked = await inflate(packed);
  renameSync(unpacked, libraries);
}
console.log(program);
console.log(existsSync(join(libraries, "lib")) ? join(libraries, "lib") : libraries);
