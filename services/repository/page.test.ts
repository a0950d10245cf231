import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { describe, it } from 'node:test';
import { hashPages, isZeroPage, pagesOf, ZERO_PAGE_HASH } from './page.ts';
import { HASH_BYTES, PAGE_BYTES } from './parameters.ts';

describe('a page', () => {
  it('is 4 KiB; the last one may be shorter and counts as one', () => {
    assert.deepEqual([0, 1, 4095, 4096, 4097, 8192].map(pagesOf), [0, 1, 1, 1, 2, 2]);
  });

  it('is zero only if every byte of it is', () => {
    const buffer = Buffer.alloc(3 * PAGE_BYTES);
    assert.ok(isZeroPage(buffer, PAGE_BYTES, PAGE_BYTES));
    for (const at of [0, 1, 2047, PAGE_BYTES - 1]) {
      buffer[PAGE_BYTES + at] = 1;
      assert.equal(isZeroPage(buffer, PAGE_BYTES, PAGE_BYTES), false, `a byte at ${at}`);
      buffer[PAGE_BYTES + at] = 0;
    }
    buffer[PAGE_BYTES - 1] = buffer[2 * PAGE_BYTES] = 1; // neighbours do not count
    assert.ok(isZeroPage(buffer, PAGE_BYTES, PAGE_BYTES));
    buffer[PAGE_BYTES + 100] = 1;
    assert.ok(isZeroPage(buffer, PAGE_BYTES, 100), 'a short page ends where it ends');
    assert.equal(isZeroPage(buffer, PAGE_BYTES, 101), false);
  });

  it('has the SHA-256 of exactly its bytes, zero or not, short or not', () => {
    const data = Buffer.alloc(3 * PAGE_BYTES + 10);
    data.fill('x', PAGE_BYTES, 2 * PAGE_BYTES);
    const hashes = Buffer.alloc(4 * HASH_BYTES);
    hashPages(data, hashes);
    for (let page = 0; page < 4; page++) {
      const expected = createHash('sha256')
        .update(data.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES))
        .digest();
      assert.deepEqual(hashes.subarray(page * HASH_BYTES, (page + 1) * HASH_BYTES), expected, `page ${page}`);
    }
    assert.deepEqual(hashes.subarray(0, HASH_BYTES), ZERO_PAGE_HASH);
  });
});
