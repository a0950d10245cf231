import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isId } from '#contract/ids.ts';
import { seededRandom } from '#test/compat/seeded-random.ts';
import { createVaultKeys } from './keys.ts';
import { machineIdOf } from './machine-id.ts';

describe('a machine that is known by its name', () => {
  const keys = createVaultKeys('vlt_01KDWPVNG0S3MF4F3TX3YRXCD8', seededRandom('machine'));

  it('has the same id whenever it is named, however its accents are written', () => {
    const id = machineIdOf(keys, 'b\u00fccher');
    assert.ok(isId('machine', id));
    assert.equal(machineIdOf(keys, 'bu\u0308cher'), id);
    assert.notEqual(machineIdOf(keys, 'Bu\u0308cher'), id);
  });

  it('has another id in another vault, so that ids tell no names', () => {
    const others = createVaultKeys(keys.vault, seededRandom('other'));
    assert.notEqual(machineIdOf(keys, 'web'), machineIdOf(others, 'web'));
  });
});
