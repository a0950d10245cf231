import { createCipheriv, createDecipheriv, createHash, hkdfSync } from 'node:crypto';
import { constants } from 'node:fs';
import { link, open, readFile, stat, unlink } from 'node:fs/promises';
import { dirname } from 'node:path';
import { z } from 'zod';
import { HoldfastError } from '#contract/errors.ts';
import { KEYS_WRAP_MAX_BYTES } from '#contract/limits.ts';
import type { Keys } from '#ports/keys.ts';
import type { Random } from '#ports/random.ts';
import { fileErrorCode, storeError } from './blobs/file-errors.ts';

const MAGIC = Buffer.from('HFK1');
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const ID_BYTES = 8;
const HEADER_BYTES = MAGIC.length + ID_BYTES + NONCE_BYTES;

const schema = z.strictObject({
  format: z.literal('holdfast-service-key'),
  version: z.literal(1),
  /** 32 bytes, base64. */
  key: z.base64().length(44),
});

/**
 * Opens the service's key file, making it with a new key if there is none. Throws `forbidden` if others than its owner
 * may read it, and `damaged` if it is no key file (a new one is never put in its place: what the old one wrapped would be lost).
 */
export async function openKeyFile(path: string, random: Random): Promise<KeyFile> {
  try {
    const existing = await readKey(path);
    if (existing !== undefined) return new KeyFile(existing, random);
    await createKeyFile(path, random);
    return new KeyFile((await readKey(path))!, random);
  } catch (error) {
    throw storeError(error, 'opening the key file', path);
  }
}

/**
 * The Keys port on a key file with mode 0600: AES-256-GCM, with the context as associated data.
 * Wrapped: `HFK1` ‖ key id (8) ‖ nonce (12) ‖ sealed ‖ tag (16).
 */
export class KeyFile implements Keys {
  readonly #key: Buffer;
  readonly #id: Buffer;
  readonly #random: Random;

  /** Use {@link openKeyFile}. @param key  32 bytes */
  constructor(key: Buffer, random: Random) {
    this.#key = key;
    this.#id = createHash('sha256').update('holdfast-service-key-id').update(key).digest().subarray(0, ID_BYTES);
    this.#random = random;
  }

  async wrap(plain: Uint8Array, context: Readonly<Record<string, string>>): Promise<Uint8Array> {
    if (plain.length === 0 || plain.length > KEYS_WRAP_MAX_BYTES) {
      throw new HoldfastError('limit', `1 to ${KEYS_WRAP_MAX_BYTES} bytes can be wrapped, not ${plain.length}`);
    }
    const header = Buffer.concat([MAGIC, this.#id, this.#random.bytes(NONCE_BYTES)]);
    const cipher = createCipheriv('aes-256-gcm', this.#key, header.subarray(-NONCE_BYTES));
    cipher.setAAD(associatedData(this.#id, context));
    return Buffer.concat([header, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
  }

  async unwrap(wrapped: Uint8Array, context: Readonly<Record<string, string>>): Promise<Uint8Array> {
    const bytes = Buffer.from(wrapped.buffer, wrapped.byteOffset, wrapped.byteLength);
    const isOurs =
      bytes.length > HEADER_BYTES + TAG_BYTES &&
      bytes.length <= HEADER_BYTES + KEYS_WRAP_MAX_BYTES + TAG_BYTES &&
      bytes.subarray(0, MAGIC.length).equals(MAGIC);
    if (!isOurs) throw wrongKey('It was not wrapped by a key file');
    if (!bytes.subarray(MAGIC.length, MAGIC.length + ID_BYTES).equals(this.#id)) {
      throw wrongKey('It was wrapped by another key file');
    }
    const nonce = bytes.subarray(HEADER_BYTES - NONCE_BYTES, HEADER_BYTES);
    const decipher = createDecipheriv('aes-256-gcm', this.#key, nonce, { authTagLength: TAG_BYTES });
    decipher.setAAD(associatedData(this.#id, context));
    decipher.setAuthTag(bytes.subarray(-TAG_BYTES));
    try {
      return Buffer.concat([decipher.update(bytes.subarray(HEADER_BYTES, -TAG_BYTES)), decipher.final()]);
    } catch {
      throw wrongKey('Its context differs, or its bytes were changed');
    }
  }

  /** A secret of 32 bytes for one purpose of the service, such as `grants`: always the same from the same key file. */
  secretFor(purpose: string): Uint8Array {
    return new Uint8Array(hkdfSync('sha256', this.#key, 'holdfast-service-secret', purpose, 32));
  }
}

async function readKey(path: string): Promise<Buffer | undefined> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if (fileErrorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
  if (((await stat(path)).mode & 0o077) !== 0) {
    throw new HoldfastError('forbidden', `Others than its owner have access to the key file ${path}`, {
      remedy: `Run: chmod 600 ${path}`,
    });
  }
  try {
    return Buffer.from(schema.parse(JSON.parse(text)).key, 'base64');
  } catch {
    // The parser's own message would quote the file, which may hold a key.
    throw new HoldfastError('damaged', `${path} is not a key file`, { remedy: 'Put it back from its copy.' });
  }
}

/** Whole or not at all, also when two processes do it at once: then the first one's key stays. */
async function createKeyFile(path: string, random: Random): Promise<void> {
  const temporary = `${path}.${Buffer.from(random.bytes(8)).toString('hex')}`;
  const file = await open(temporary, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600);
  try {
    const key = Buffer.from(random.bytes(32)).toString('base64');
    await file.writeFile(`${JSON.stringify({ format: 'holdfast-service-key', version: 1, key })}\n`);
    await file.sync();
    await link(temporary, path).catch((error: unknown) => {
      if (fileErrorCode(error) !== 'EEXIST') throw error;
    });
  } finally {
    await file.close();
    await unlink(temporary);
  }
  const folder = await open(dirname(path), constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/** The context in one form whatever the order of its names, so that it can't be read as another one. */
function associatedData(id: Uint8Array, context: Readonly<Record<string, string>>): Buffer {
  const entries = Object.entries(context).sort(([a], [b]) => (a < b ? -1 : 1));
  return Buffer.concat([MAGIC, id, Buffer.from(JSON.stringify(entries))]);
}

function wrongKey(why: string): HoldfastError {
  return new HoldfastError('wrong-key', `The wrapped key does not open: ${why}`, {
    remedy: 'Use the key file of the installation that wrapped it.',
  });
}
