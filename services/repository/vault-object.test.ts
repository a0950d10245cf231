import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isHoldfastError } from '#contract/errors.ts';
import { seededRandom } from '#test/compat/seeded-random.ts';
import { createVaultKeys } from './keys.ts';
import { checkKeysFit, decodeVaultObject, describeVault, encodeVaultObject } from './vault-object.ts';

const random = seededRandom('vault object');
const keys = createVaultKeys('vlt_01KDWPVNG0S3MF4F3TX3YRXCD8', random);
const vault = describeVault(keys, 1_767_355_200_000);
const decode = (value: unknown) => decodeVaultObject(Buffer.from(JSON.stringify(value)));

describe('the vault object', () => {
  it('reads back, and ignores fields of later programs', () => {
    assert.deepEqual(decodeVaultObject(encodeVaultObject(vault)), vault);
    assert.deepEqual(decode({ ...vault, motto: 'later' }), vault);
  });

  it('of a newer version is refused by name, whatever else it holds', () => {
    for (const value of [
      { ...vault, formatVersion: 2 },
      { holdfast: 'vault', formatVersion: 9, parameters: 'unheard of' },
    ])
      assert.throws(
        () => decode(value),
        (error) => isHoldfastError(error, 'format-too-new'),
      );
  });

  it('with other parameters, or that is no vault object, is damaged', () => {
    const parameters = { ...vault.parameters, pageBytes: 8192 };
    for (const value of [
      { ...vault, parameters },
      { ...vault, holdfast: 'cellar' },
      { ...vault, publicSigningKey: 7 },
      null,
      'x',
    ])
      assert.throws(
        () => decode(value),
        (error) => isHoldfastError(error, 'damaged'),
      );
    assert.throws(
      () => decodeVaultObject(Buffer.from('{"holdfast"')),
      (error) => isHoldfastError(error, 'damaged'),
    );
  });

  it('knows its own keys', () => {
    checkKeysFit(vault, keys);
    const others = createVaultKeys(keys.vault, random); // the same name, other keys
    const elsewhere = { ...keys, vault: 'vlt_01KDWPVNG0S3MF4F3TX3YRXCD9' as const };
    assert.throws(
      () => checkKeysFit(vault, others),
      (error) => isHoldfastError(error, 'damaged'),
    );
    assert.throws(
      () => checkKeysFit(vault, elsewhere),
      (error) => isHoldfastError(error, 'wrong-key'),
    );
  });
});
