import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { KeyedHash } from './keyed-hash.ts';

const hmac = (key: Uint8Array, tag: number, message: Uint8Array) =>
  createHmac('sha256', key)
    .update(Buffer.from([tag]))
    .update(message)
    .digest('hex');

describe('KeyedHash', () => {
  it('is HMAC-SHA-256 of the tag and the message, whatever the key and the length', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 0, maxLength: 64 }),
        fc.array(fc.tuple(fc.integer({ min: 0, max: 255 }), fc.nat({ max: 20_000 })), { minLength: 1, maxLength: 6 }),
        (key, messages) => {
          const code = new KeyedHash(key);
          // Long and short messages in turn: what one leaves behind must not leak into the next.
          for (const [tag, length] of messages) {
            const message = Buffer.alloc(length, tag ^ 0x5a);
            assert.equal(code.digest(tag, message).toString('hex'), hmac(key, tag, message));
          }
        },
      ),
      { seed: 1, numRuns: 60 },
    );
  });

  it('is right at the ends of its buffer, where it has to grow', () => {
    const key = Buffer.alloc(32, 7);
    const code = new KeyedHash(key);
    for (const length of [8190, 8191, 8192, 8193, 16_384, 131_072, 1, 0]) {
      const message = Buffer.alloc(length, length);
      assert.equal(code.digest(2, message).toString('hex'), hmac(key, 2, message), `${length} bytes`);
    }
  });

  it('refuses a key that RFC 2104 would hash first', () => {
    assert.throws(() => new KeyedHash(Buffer.alloc(65)), RangeError);
  });
});
