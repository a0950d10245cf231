import { sha256, sha256Into } from './sha256.ts';

const BLOCK = 64;

/**
 * HMAC-SHA-256 (RFC 2104) with its key prepared once, over messages handed in as one buffer.
 * Two one-shot hashes cost half of what a streaming HMAC object does at our message sizes.
 */
export class KeyedHash {
  readonly #outer = Buffer.alloc(BLOCK + 32, 0x5c);
  #inner = Buffer.alloc(BLOCK + 8192, 0x36);

  /** @param key  at most 64 bytes */
  constructor(key: Uint8Array) {
    if (key.length > BLOCK) throw new RangeError('a key of at most 64 bytes');
    for (let i = 0; i < key.length; i++) {
      this.#inner[i]! ^= key[i]!;
      this.#outer[i]! ^= key[i]!;
    }
  }

  /** The 32-byte code of `tag ‖ message`. */
  digest(tag: number, message: Uint8Array): Buffer {
    const length = BLOCK + 1 + message.length;
    if (this.#inner.length < length) {
      const larger = Buffer.alloc(length * 2);
      this.#inner.copy(larger, 0, 0, BLOCK);
      this.#inner = larger;
    }
    this.#inner[BLOCK] = tag;
    this.#inner.set(message, BLOCK + 1);
    sha256Into(this.#inner.subarray(0, length), this.#outer, BLOCK);
    return sha256(this.#outer);
  }
}
