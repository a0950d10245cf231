import { type FileHandle, open, realpath } from 'node:fs/promises';
import { dirname, resolve, sep } from 'node:path';
import { HoldfastError } from '#contract/errors.ts';
import { readFailure } from '../file-errors.ts';
import { formatOfName, type ImageFormat, PROBE_BYTES, probeFormat, readHead } from './format.ts';

/** Longest chain of images that stand on one another. */
const DEPTH_MAX = 64;
const DESCRIPTOR_MAX_BYTES = 64 * 1024;
const QCOW2_EXTERNAL_DATA = 4n; // incompatible feature bit 2
const QCOW2_DATA_FILE_NAME = 0x44415441; // header extension
const QCOW2_NAME_MAX_BYTES = 1023;

/**
 * Checks the files that an image refers to (backing files, data files, extents). A guest that was given a raw disk
 * can write an image header into it that names any file of the host: so references are followed only from a file
 * whose name agrees with the format (or whose format the operator has `stated`), and only to files in the image's own
 * folder. Throws `forbidden`, `unreadable`.
 */
export async function checkReferences(path: string, format: ImageFormat, stated: boolean): Promise<void> {
  const folder = dirname(await realpath(path));
  let current = { path, format };
  for (let depth = 0; depth < DEPTH_MAX; depth++) {
    const names = await referencesOf(current.path, current.format);
    if (names.length === 0) return;
    if (!stated && formatOfName(current.path) !== current.format) {
      throw refused(
        path,
        `its content claims to be ${current.format} and refers to ${names[0]}, its name does not say so`,
      );
    }
    const files = [];
    for (const name of names) files.push(await inFolder(path, current.path, folder, name));
    const next = files[0]!; // only qcow2 chains go on, and have one backing file
    if (current.format !== 'qcow2') return;
    const file = await openImageFile(next);
    const head = await readHead(file).finally(() => file.close());
    current = { path: next, format: probeFormat(head) };
  }
  throw refused(path, `over ${DEPTH_MAX} images stand on one another`);
}

/** The names of other files in an image's header, as they are written there. */
async function referencesOf(path: string, format: ImageFormat): Promise<string[]> {
  if (format !== 'qcow2' && format !== 'vmdk') return [];
  const file = await openImageFile(path);
  try {
    const head = await readHead(file);
    return format === 'qcow2' ? await qcow2References(file, head) : await vmdkReferences(file, head);
  } finally {
    await file.close();
  }
}

async function qcow2References(file: FileHandle, head: Buffer): Promise<string[]> {
  const names: string[] = [];
  if (head.length < 72) return names;
  const backingAt = Number(head.readBigUInt64BE(8));
  const backingBytes = head.readUInt32BE(16);
  if (backingAt !== 0) {
    if (backingBytes > QCOW2_NAME_MAX_BYTES) return ['(an overlong name)'];
    const { buffer, bytesRead } = await file.read(Buffer.alloc(backingBytes), 0, backingBytes, backingAt);
    names.push(buffer.toString('utf8', 0, bytesRead));
  }
  const version = head.readUInt32BE(4);
  if (version < 3 || head.length < 104 || (head.readBigUInt64BE(72) & QCOW2_EXTERNAL_DATA) === 0n) return names;
  let at = head.readUInt32BE(100);
  while (at + 8 <= Math.min(head.length, PROBE_BYTES)) {
    const [type, length] = [head.readUInt32BE(at), head.readUInt32BE(at + 4)];
    if (type === 0) break;
    if (type === QCOW2_DATA_FILE_NAME) return [...names, head.toString('utf8', at + 8, at + 8 + length)];
    at += 8 + Math.ceil(length / 8) * 8;
  }
  return [...names, '(an external data file)'];
}

async function vmdkReferences(file: FileHandle, head: Buffer): Promise<string[]> {
  const embedded = head.toString('latin1', 0, 4) === 'KDMV';
  if (!embedded && head.toString('latin1', 0, 4) === 'COWD') return [];
  const at = embedded ? Number(head.readBigUInt64LE(28)) * 512 : 0;
  if (embedded && at === 0) return [];
  const { buffer, bytesRead } = await file.read(Buffer.alloc(DESCRIPTOR_MAX_BYTES), 0, DESCRIPTOR_MAX_BYTES, at);
  const text = buffer.toString('utf8', 0, bytesRead).split('\0', 1)[0]!;
  const names: string[] = [];
  const parent = /^\s*parentFileNameHint\s*=\s*"([^"\n]*)"/m.exec(text);
  if (parent) names.push(parent[1]!);
  // A descriptor inside a sparse extent describes that extent itself.
  if (!embedded)
    for (const [, name] of text.matchAll(/^\s*(?:RW|RDONLY|NOACCESS)\s+\d+\s+\w+\s+"([^"\n]*)"/gm)) names.push(name!);
  return names;
}

async function inFolder(image: string, from: string, folder: string, name: string): Promise<string> {
  // QEMU takes a colon before the first slash for a protocol, such as json: or nbd:.
  if (/^[^/]*:/.test(name)) throw refused(image, `it refers to ${name}`);
  const path = resolve(dirname(from), name);
  let real: string;
  try {
    real = await realpath(path);
  } catch (cause) {
    throw new HoldfastError('unreadable', `${from} stands on ${path}, which cannot be opened`, {
      cause,
      remedy: 'Put the whole chain of images where the first one says they are',
      data: { path: image, reference: path },
    });
  }
  if (!real.startsWith(folder.endsWith(sep) ? folder : folder + sep))
    throw refused(image, `it refers to ${name}, outside of its folder`);
  return real;
}

async function openImageFile(path: string): Promise<FileHandle> {
  try {
    return await open(path, 'r');
  } catch (cause) {
    throw readFailure(path, cause);
  }
}

function refused(path: string, why: string): HoldfastError {
  return new HoldfastError('forbidden', `${path} is not opened: ${why}`, {
    remedy:
      'If this is a raw disk say format raw; if it is yours and the reference is right, say its format and allow references',
    data: { path },
  });
}
