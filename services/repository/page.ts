import { HASH_BYTES, PAGE_BYTES } from './parameters.ts';
import { sha256, sha256Into } from './sha256.ts';

const ZERO_PAGE = Buffer.alloc(PAGE_BYTES);

/** SHA-256 of a page of 4,096 zero bytes. */
export const ZERO_PAGE_HASH: Buffer = sha256(ZERO_PAGE);

/** Pages that `bytes` bytes of disk take; the last may be short. */
export function pagesOf(bytes: number): number {
  return Math.ceil(bytes / PAGE_BYTES);
}

/** True if `length` bytes (at most a page) of the buffer are all zero. */
export function isZeroPage(buffer: Buffer, offset: number, length: number): boolean {
  // One look at the first word spares the call for nearly every page of data.
  if (buffer[offset] !== 0) return false;
  return buffer.compare(ZERO_PAGE, 0, length, offset, offset + length) === 0;
}

/** Writes the hashes of all pages of `bytes` of data to `hashes`, 32 bytes a page. */
export function hashPages(data: Buffer, hashes: Buffer): void {
  for (let offset = 0, at = 0; offset < data.length; offset += PAGE_BYTES, at += HASH_BYTES) {
    const length = Math.min(PAGE_BYTES, data.length - offset);
    if (length === PAGE_BYTES && isZeroPage(data, offset, length)) ZERO_PAGE_HASH.copy(hashes, at);
    else sha256Into(data.subarray(offset, offset + length), hashes, at);
  }
}
