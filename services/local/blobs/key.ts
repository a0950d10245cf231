import { HoldfastError } from '#contract/errors.ts';
import { BLOB_KEY_MAX_BYTES } from '#contract/limits.ts';

/** Longest file name that common file systems take, in bytes. */
const NAME_MAX_BYTES = 255;

/**
 * Checks that a key can be a file's path below the root, and only below it: names of 1 to 255 bytes joined
 * by `/`, none beginning with a dot, no control characters and no backslash. Throws `usage` or `limit`.
 */
export function checkKey(key: string): void {
  if (Buffer.byteLength(key) > BLOB_KEY_MAX_BYTES) {
    throw new HoldfastError('limit', `An object's key may have ${BLOB_KEY_MAX_BYTES} bytes`, {
      data: { key: key.slice(0, 64) },
    });
  }
  for (const name of key.split('/')) {
    // A leading dot covers `.` and `..`, and keeps our own folder of temporary files out of reach.
    if (name === '' || name.startsWith('.') || Buffer.byteLength(name) > NAME_MAX_BYTES) throw bad(key);
  }
  if (!isPlainText(key)) throw bad(key);
}

/** Checks the beginning of a key, as given to `list`: like a key, but it may be empty or stop anywhere. */
export function checkPrefix(prefix: string): void {
  if (Buffer.byteLength(prefix) > BLOB_KEY_MAX_BYTES) {
    throw new HoldfastError('limit', `A prefix may have ${BLOB_KEY_MAX_BYTES} bytes`);
  }
  const names = prefix.split('/');
  const folders = names.slice(0, -1);
  if (folders.includes('') || names.some((name) => name.startsWith('.')) || !isPlainText(prefix)) throw bad(prefix);
}

function isPlainText(key: string): boolean {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
  return key.isWellFormed() && !/[\u0000-\u001f\u007f\\]/.test(key);
}

function bad(key: string): HoldfastError {
  return new HoldfastError('usage', `Not a valid object key: ${JSON.stringify(key.slice(0, 80))}`, {
    remedy: 'Use names joined by "/", without leading dots, empty names, backslashes or control characters.',
  });
}
