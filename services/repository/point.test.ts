import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isHoldfastError } from '#contract/errors.ts';
import { seededRandom } from '#test/compat/seeded-random.ts';
import { createVaultKeys, rotateVaultKeys } from './keys.ts';
import { decodePoint, encodePoint, type Point, pointKey, publicSigningKey, readPointFacts } from './point.ts';

const random = seededRandom('point');
const keys = createVaultKeys('vlt_01KDWPVNG0S3MF4F3TX3YRXCD8', random);
const damaged = (error: unknown) => isHoldfastError(error, 'damaged');
const wrongKey = (error: unknown) => isHoldfastError(error, 'wrong-key');

const point: Point = {
  facts: {
    vault: keys.vault,
    machine: 'vm_697AMSK6R85QTP919HE4D9W4J6',
    point: 'pnt_01KDZ98CG0SHEFWV4EV4YYF5M3',
    parent: 'pnt_01KDZ98CG0SHEFWV4EV4YYF5M2',
    takenAtMs: 1767355200000,
    disks: [
      { root: 'ab'.repeat(32), sizeBytes: 123_456_789 },
      { root: null, sizeBytes: 0 },
    ],
    labels: ['daily'],
    sealEpoch: 0,
  },
  secrets: {
    machineName: 'Grüße 🖥',
    diskNames: ['a', 'b'],
    changeMarkers: { a: '1' },
    config: { nested: [1, { deep: true }] },
    stats: { seconds: 2 },
  },
};

describe('a point', () => {
  it('reads back whole with the keys, and its facts with the public key alone', () => {
    const bytes = encodePoint(point, keys, random);
    assert.deepEqual(decodePoint(bytes, keys), point);
    assert.deepEqual(readPointFacts(bytes, publicSigningKey(keys)), point.facts);
    assert.equal(
      pointKey(point.facts.machine, point.facts.point),
      `points/${point.facts.machine}/${point.facts.point}`,
    );
  });

  it('shows nothing of its secrets in clear', () => {
    const bytes = encodePoint(point, keys, random).toString('latin1');
    for (const secret of ['machineName', Buffer.from('Grüße').toString('latin1'), 'nested', 'seconds'])
      assert.ok(!bytes.includes(secret), secret);
  });

  it('is damaged once any bit of it has flipped', () => {
    const bytes = encodePoint(point, keys, random);
    const publicKey = publicSigningKey(keys);
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      bytes[bit >> 3]! ^= 1 << (bit & 7);
      assert.throws(() => readPointFacts(bytes, publicKey), damaged, `bit ${bit}`);
      if (bit % 16 === 0) assert.throws(() => decodePoint(bytes, keys), damaged, `bit ${bit}`);
      bytes[bit >> 3]! ^= 1 << (bit & 7);
    }
    for (const length of [0, 8, 79, 80, bytes.length - 1])
      assert.throws(() => decodePoint(bytes.subarray(0, length), keys), damaged);
    assert.throws(() => decodePoint(Buffer.concat([bytes, Buffer.alloc(1)]), keys), damaged);
  });

  it('of another vault is damaged, for nobody there could sign it', () => {
    const others = createVaultKeys('vlt_01KDWPVNG0S3MF4F3TX3YRXCD9', random);
    const bytes = encodePoint(point, keys, random);
    assert.throws(() => decodePoint(bytes, others), damaged);
    assert.throws(() => readPointFacts(bytes, publicSigningKey(others)), damaged);
    assert.throws(() => decodePoint(bytes, { ...keys, vault: others.vault }), wrongKey);
  });

  it('wants the key it was sealed with', () => {
    const later = rotateVaultKeys(keys, random);
    const bytes = encodePoint({ ...point, facts: { ...point.facts, sealEpoch: 1 } }, later, random);
    assert.throws(() => decodePoint(bytes, keys), wrongKey);
    assert.equal(decodePoint(bytes, later).secrets.machineName, point.secrets.machineName);
    assert.throws(() => decodePoint(bytes, { ...later, sealKeys: [later.sealKeys[0]!, new Uint8Array(32)] }), damaged);
  });

  it('does not grow beyond what a reader takes', () => {
    const huge = { ...point, secrets: { ...point.secrets, config: 'x'.repeat(4 * 1024 * 1024) } };
    assert.throws(
      () => encodePoint(huge, keys, random),
      (error) => isHoldfastError(error, 'limit'),
    );
  });
});
