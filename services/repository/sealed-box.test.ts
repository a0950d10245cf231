import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import test from 'node:test';
import { isHoldfastError } from '#contract/errors.ts';
import { openBox, sealBox, x25519PrivateKey, x25519PublicBytes } from './sealed-box.ts';

const random = { bytes: (length: number) => randomBytes(length), fraction: () => 0.5 };
const key = x25519PrivateKey(Buffer.alloc(32, 7));
const secret = Buffer.from('the keys of a vault');
const wrongKey = (error: unknown) => isHoldfastError(error, 'wrong-key');

test('only the recipient opens a box, with the same context', () => {
  const box = sealBox(x25519PublicBytes(key), secret, 'vlt_1', random);
  assert.deepEqual(openBox(key, box, 'vlt_1'), secret);
  assert.throws(() => openBox(x25519PrivateKey(Buffer.alloc(32, 8)), box, 'vlt_1'), wrongKey);
  assert.throws(() => openBox(key, box, 'vlt_2'), wrongKey);
});

test('a box shows nothing of its content and never looks the same twice', () => {
  const one = sealBox(x25519PublicBytes(key), secret, '', random);
  const two = sealBox(x25519PublicBytes(key), secret, '', random);
  assert.notDeepEqual(one, two);
  assert.equal(one.indexOf(secret), -1);
});

test('any altered, cut or empty box is refused', () => {
  const box = sealBox(x25519PublicBytes(key), secret, '', random);
  for (let i = 0; i < box.length; i++) {
    const altered = Buffer.from(box);
    altered[i]! ^= 1;
    assert.throws(() => openBox(key, altered, ''), wrongKey, `byte ${i}`);
    assert.throws(() => openBox(key, box.subarray(0, i), ''), wrongKey, `cut at ${i}`);
  }
});
