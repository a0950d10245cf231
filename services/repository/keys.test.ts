import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type HoldfastError, isHoldfastError } from '#contract/errors.ts';
import { seededRandom } from '#test/compat/seeded-random.ts';
import { createVaultKeys, decodeKeys, encodeKeys, rotateVaultKeys } from './keys.ts';

const random = seededRandom('keys');
const plain = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');

describe('vault keys', () => {
  const keys = createVaultKeys('vlt_01KDWPVNG0S3MF4F3TX3YRXCD8', random);

  it('are all different, and of their sizes', () => {
    assert.deepEqual(
      [keys.idKey, keys.cutKey, keys.sealKeys[0]!, keys.signSeed].map((key) => key.length),
      [32, 16, 32, 32],
    );
    assert.equal(new Set([keys.idKey, keys.sealKeys[0]!, keys.signSeed].map(plain)).size, 3);
  });

  it('read back from their JSON', () => {
    const read = decodeKeys(encodeKeys(keys));
    assert.equal(read.vault, keys.vault);
    for (const name of ['idKey', 'cutKey', 'signSeed'] as const) assert.equal(plain(read[name]), plain(keys[name]));
  });

  it('gain a sealing key by rotation and lose none', () => {
    const rotated = rotateVaultKeys(rotateVaultKeys(keys, random), random);
    assert.equal(rotated.sealKeys.length, 3);
    assert.equal(plain(rotated.sealKeys[0]!), plain(keys.sealKeys[0]!));
    assert.equal(plain(rotated.idKey), plain(keys.idKey), 'or nothing would deduplicate any more');
    assert.deepEqual(decodeKeys(encodeKeys(rotated)).sealKeys.map(plain), rotated.sealKeys.map(plain));
  });

  it('that are incomplete are damaged, and the error keeps them to itself', () => {
    const value = JSON.parse(Buffer.from(encodeKeys(keys)).toString()) as Record<string, unknown>;
    const bad = [
      { ...value, idKey: value.cutKey },
      { ...value, sealKeys: [] },
      { ...value, signSeed: undefined },
      { ...value, vault: 'x' },
      7,
    ];
    for (const one of [...bad.map((v) => JSON.stringify(v)), '{', JSON.stringify(value).slice(0, -1)]) {
      assert.throws(
        () => decodeKeys(Buffer.from(one)),
        (error) =>
          isHoldfastError(error, 'damaged') &&
          !`${(error as HoldfastError).stack}${JSON.stringify(error)}`.includes(String(value.cutKey)),
      );
    }
  });
});
