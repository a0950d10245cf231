import { hash } from 'node:crypto';

/** SHA-256 of one buffer. */
export function sha256(data: Uint8Array): Buffer {
  return hash('sha256', data, 'buffer');
}

/**
 * Writes the SHA-256 of `data` to `out` at `offset`. The digest leaves native code as a latin-1 string,
 * which Node makes a third faster than a Buffer; that counts when every page of a disk is hashed.
 */
export function sha256Into(data: Uint8Array, out: Buffer, offset: number): void {
  out.write(hash('sha256', data, 'binary'), offset, 32, 'binary');
}
