import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { isHoldfastError } from '#contract/errors.ts';
import { KEYS_WRAP_MAX_BYTES } from '#contract/limits.ts';
import type { Keys } from '#ports/keys.ts';

export interface KeysFixture {
  readonly keys: Keys;
  /** Another keeper of keys, who must not be able to unwrap. */
  readonly others: Keys;
  dispose(): Promise<void>;
}

const failsWith = (code: Parameters<typeof isHoldfastError>[1]) => (error: unknown) => isHoldfastError(error, code);

/** What every adapter of the Keys port must do. */
export function keysConformance(name: string, make: () => Promise<KeysFixture>): void {
  describe(`${name} keeps the promises of Keys`, () => {
    let fixture: KeysFixture;
    let keys: Keys;
    before(async () => {
      fixture = await make();
      keys = fixture.keys;
    });
    after(() => fixture.dispose());

    const plain = Buffer.from('thirty-two bytes of a secret key');
    const context = { vault: 'vlt_1', purpose: 'seal' };

    it('unwraps what it wrapped, given the same context in any order', async () => {
      const wrapped = await keys.wrap(plain, context);
      assert.deepEqual(Buffer.from(await keys.unwrap(wrapped, { purpose: 'seal', vault: 'vlt_1' })), plain);
      assert.equal(Buffer.from(wrapped).includes(plain), false);
    });

    it('wraps the same key to other bytes each time', async () => {
      assert.notDeepEqual(await keys.wrap(plain, context), await keys.wrap(plain, context));
    });

    it('refuses any other context', async () => {
      const wrapped = await keys.wrap(plain, context);
      const others = [{}, { vault: 'vlt_1' }, { ...context, more: '' }, { vault: 'vlt_2', purpose: 'seal' }];
      for (const other of [...others, { vault: 'seal', purpose: 'vlt_1' }, { 'vault","vlt_1': 'x' }]) {
        await assert.rejects(keys.unwrap(wrapped, other as Record<string, string>), failsWith('wrong-key'));
      }
    });

    it('refuses what somebody else wrapped, and what was changed, cut or is nothing at all', async () => {
      const wrapped = Buffer.from(await keys.wrap(plain, context));
      await assert.rejects(fixture.others.unwrap(wrapped, context), failsWith('wrong-key'));
      for (let at = 0; at < wrapped.length; at++) {
        const changed = Buffer.from(wrapped);
        changed[at]! ^= 1;
        await assert.rejects(keys.unwrap(changed, context), failsWith('wrong-key'), `byte ${at}`);
      }
      for (const length of [0, 1, 20, wrapped.length - 1]) {
        await assert.rejects(keys.unwrap(wrapped.subarray(0, length), context), failsWith('wrong-key'));
      }
      await assert.rejects(keys.unwrap(Buffer.concat([wrapped, Buffer.alloc(1)]), context), failsWith('wrong-key'));
    });

    it('wraps 1 byte to 4 KiB', async () => {
      const most = Buffer.alloc(KEYS_WRAP_MAX_BYTES, 7);
      assert.deepEqual(Buffer.from(await keys.unwrap(await keys.wrap(most, context), context)), most);
      await assert.rejects(keys.wrap(Buffer.alloc(KEYS_WRAP_MAX_BYTES + 1), context), failsWith('limit'));
      await assert.rejects(keys.wrap(Buffer.alloc(0), context), failsWith('limit'));
    });
  });
}
