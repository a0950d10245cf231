import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isHoldfastError } from '#contract/errors.ts';
import { seededRandom } from '#test/compat/seeded-random.ts';
import { readKeyFile, writeKeyFile } from './key-file.ts';
import { createVaultKeys, decodeKeys, encodeKeys } from './keys.ts';

const random = seededRandom('key file');
const keys = decodeKeys(encodeKeys(createVaultKeys('vlt_01KDWPVNG0S3MF4F3TX3YRXCD8', random)));
const wrongKey = (error: unknown) => isHoldfastError(error, 'wrong-key');
const damaged = (error: unknown) => isHoldfastError(error, 'damaged');

describe('a key file', () => {
  it('without a passphrase gives the keys to whoever has it', async () => {
    assert.deepEqual(await readKeyFile(await writeKeyFile(keys, undefined, random), undefined), keys);
  });

  it('with a passphrase gives them for that passphrase only, however it was typed', async () => {
    const text = await writeKeyFile(keys, 'p\u00e4ssword', random);
    assert.deepEqual(await readKeyFile(text, 'pa\u0308ssword'), keys);
    await assert.rejects(readKeyFile(text, 'password'), wrongKey);
    await assert.rejects(readKeyFile(text, undefined), wrongKey);
    assert.ok(!text.includes(Buffer.from(keys.idKey).toString('base64')));
  });

  it('belongs to its vault: the name on it cannot be changed', async () => {
    const text = await writeKeyFile(keys, 'a', random);
    await assert.rejects(readKeyFile(text.replace(keys.vault, 'vlt_01KDWPVNG0S3MF4F3TX3YRXCD9'), 'a'), wrongKey);
  });

  it('that is something else is damaged, with or without a passphrase', async () => {
    const plain = await writeKeyFile(keys, undefined, random);
    const locked = JSON.parse(await writeKeyFile(keys, 'a', random)) as Record<string, unknown>;
    const scrypt = locked.scrypt as object;
    for (const text of [
      '',
      '[]',
      plain.slice(0, 100),
      plain.replace('key-file-1', 'key-file-2'),
      JSON.stringify({ ...locked, keys: 'AAAA' }),
      JSON.stringify({ ...locked, scrypt: { ...scrypt, n: 2 } }),
      JSON.stringify({ ...locked, scrypt: { ...scrypt, n: 2 ** 40 } }),
      JSON.stringify({ ...locked, scrypt: { ...scrypt, r: 9 } }),
    ])
      await assert.rejects(readKeyFile(text, 'a'), damaged, text.slice(0, 60));
  });
});
