import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { isHoldfastError } from '#contract/errors.ts';
import { TABLE_KEY_MAX_BYTES, TABLE_TRANSACTION_MAX_ACTIONS } from '#contract/limits.ts';
import type { JsonObject, Table, TableAction, TableItem, TableRange } from '#ports/table.ts';
import type { ManualClock } from './manual-clock.ts';

export interface TableFixture {
  readonly table: Table;
  /** The clock the table judges expiry by; absent where the store's own time does. */
  readonly clock?: ManualClock;
  dispose(): Promise<void>;
}

const failsWith = (code: Parameters<typeof isHoldfastError>[1]) => (error: unknown) => isHoldfastError(error, code);

/** What every adapter of the Table port must do. `make` gives an empty table. */
export function tableConformance(name: string, make: () => Promise<TableFixture>): void {
  describe(`${name} keeps the promises of Table`, () => {
    let fixture: TableFixture;
    let table: Table;
    before(async () => {
      fixture = await make();
      table = fixture.table;
    });
    after(() => fixture.dispose());

    const all = async (partition: string, range: TableRange = {}): Promise<TableItem[]> => {
      const items: TableItem[] = [];
      for (let cursor: string | undefined; ; ) {
        const page = await table.query(partition, { ...range, ...(cursor === undefined ? {} : { cursor }) });
        items.push(...page.items);
        cursor = page.next;
        if (cursor === undefined) return items;
      }
    };
    const sorts = async (partition: string, range: TableRange = {}) =>
      (await all(partition, range)).map((item) => item.key.sort);

    it('gives back an item as it was put, or nothing', async () => {
      const value = {
        text: 'é\u{1f600}"\n',
        empty: '',
        number: -1.5e-7,
        big: Number.MAX_SAFE_INTEGER,
        yes: true,
        none: null,
        list: [1, 'two', [null], {}],
        inner: { deep: { deeper: [{ a: 1 }] } },
      };
      const key = { partition: 'get', sort: 'a' };
      assert.equal(await table.get(key), undefined);
      assert.deepEqual(await table.put(key, value), { key, value, version: 1 });
      assert.deepEqual(await table.get(key), { key, value, version: 1 });
      assert.equal(await table.get({ partition: 'get', sort: 'A' }), undefined);
      assert.equal(await table.get({ partition: 'Get', sort: 'a' }), undefined);
    });

    it('counts versions from 1, one more at each change, and anew after a delete', async () => {
      const key = { partition: 'version', sort: 'a' };
      assert.equal((await table.put(key, { n: 1 })).version, 1);
      assert.equal((await table.put(key, { n: 1 })).version, 2);
      await table.transact([{ put: key, value: { n: 3 } }]);
      assert.equal((await table.get(key))!.version, 3);
      await table.delete(key);
      assert.equal((await table.put(key, { n: 1 })).version, 1);
    });

    it('replaces the whole value', async () => {
      const key = { partition: 'replace', sort: 'a' };
      await table.put(key, { old: 1, both: 1 });
      await table.put(key, { both: 2 });
      assert.deepEqual((await table.get(key))!.value, { both: 2 });
    });

    it('fixes the value at the time of the call', async () => {
      const key = { partition: 'fixed', sort: 'a' };
      const value = { list: [1] };
      const put = table.put(key, value);
      value.list.push(2);
      await put;
      assert.deepEqual((await table.get(key))!.value, { list: [1] });
    });

    it('puts on a condition only if it holds', async () => {
      const key = { partition: 'condition', sort: 'a' };
      await assert.rejects(table.put(key, { n: 0 }, { ifVersion: 1 }), failsWith('conflict'));
      await table.put(key, { n: 1 }, { ifAbsent: true });
      await assert.rejects(table.put(key, { n: 2 }, { ifAbsent: true }), failsWith('conflict'));
      await assert.rejects(table.put(key, { n: 2 }, { ifVersion: 2 }), failsWith('conflict'));
      assert.equal((await table.put(key, { n: 2 }, { ifVersion: 1 })).version, 2);
      assert.deepEqual((await table.get(key))!.value, { n: 2 });
      await assert.rejects(table.put(key, {}, { ifAbsent: true, ifVersion: 1 }), failsWith('usage'));
    });

    it('deletes if there is something, on a condition only if it holds', async () => {
      const key = { partition: 'delete', sort: 'a' };
      await table.delete(key);
      await assert.rejects(table.delete(key, { ifVersion: 1 }), failsWith('conflict'));
      await table.put(key, {});
      await assert.rejects(table.delete(key, { ifVersion: 2 }), failsWith('conflict'));
      await table.delete(key, { ifVersion: 1 });
      assert.equal(await table.get(key), undefined);
    });

    it('judges conditions asked for at once in order, and one that fails fails alone', async () => {
      const key = { partition: 'at-once', sort: 'a' };
      const answers = await Promise.allSettled([
        table.put(key, { n: 1 }, { ifAbsent: true }),
        table.put(key, { n: 2 }, { ifAbsent: true }),
        table.put(key, { n: 3 }, { ifVersion: 1 }),
        table.put(key, { n: 4 }, { ifVersion: 1 }),
        table.put({ partition: 'at-once', sort: 'b' }, {}),
      ]);
      const statuses = answers.map((answer) => answer.status === 'fulfilled');
      assert.deepEqual(statuses, [true, false, true, false, true]);
      assert.deepEqual(await table.get(key), { key, value: { n: 3 }, version: 2 });
    });

    it('lets exactly one of 50 create an item', async () => {
      const key = { partition: 'race', sort: 'create' };
      const puts = Array.from({ length: 50 }, (_, n) => table.put(key, { n }, { ifAbsent: true }));
      const answers = await Promise.allSettled(puts);
      assert.equal(answers.filter((answer) => answer.status === 'fulfilled').length, 1);
      for (const answer of answers) {
        if (answer.status === 'rejected') assert.ok(isHoldfastError(answer.reason, 'conflict'));
      }
    });

    it('loses no update when many count by version', async () => {
      const key = { partition: 'race', sort: 'count' };
      await table.put(key, { n: 0 });
      const addOne = async () => {
        for (let attempt = 0; attempt < 200; attempt++) {
          const item = (await table.get(key))!;
          const next = { n: (item.value.n as number) + 1 };
          const done = await table.put(key, next, { ifVersion: item.version }).catch((error) => {
            if (!isHoldfastError(error, 'conflict')) throw error;
          });
          if (done) return;
        }
        assert.fail('never came through');
      };
      await Promise.all(Array.from({ length: 20 }, addOne));
      assert.equal((await table.get(key))!.value.n, 20);
    });

    it('queries one partition in the byte order of sort keys, by range, both ways', async () => {
      const keys = ['a', 'a#1', 'a#10', 'a#2', 'aa', 'b', 'B', 'é', '\uffee', '\u{1f600}', '~'];
      for (const sort of [...keys].reverse()) await table.put({ partition: 'q', sort }, { sort });
      await table.put({ partition: 'q2', sort: 'a' }, {});
      await table.put({ partition: 'p', sort: 'a' }, {});
      const ordered = [...keys].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
      assert.deepEqual(await sorts('q'), ordered);
      assert.deepEqual(await sorts('q', { reverse: true }), [...ordered].reverse());
      assert.deepEqual(await sorts('q', { prefix: 'a' }), ['a', 'a#1', 'a#10', 'a#2', 'aa']);
      assert.deepEqual(await sorts('q', { prefix: 'a#' }), ['a#1', 'a#10', 'a#2']);
      assert.deepEqual(await sorts('q', { prefix: 'a#', reverse: true }), ['a#2', 'a#10', 'a#1']);
      assert.deepEqual(await sorts('q', { prefix: '\u{1f600}' }), ['\u{1f600}']);
      assert.deepEqual(await sorts('q', { from: 'a#10', before: 'b' }), ['a#10', 'a#2', 'aa']);
      assert.deepEqual(await sorts('q', { from: 'a#10', before: 'b', reverse: true }), ['aa', 'a#2', 'a#10']);
      assert.deepEqual(await sorts('q', { prefix: 'a', from: 'a#10' }), ['a#10', 'a#2', 'aa']);
      assert.deepEqual(await sorts('q', { prefix: 'a', before: 'a#2' }), ['a', 'a#1', 'a#10']);
      assert.deepEqual(await sorts('q', { from: 'b', before: 'a' }), []);
      assert.deepEqual(await sorts('absent'), []);
      assert.deepEqual(await table.query('q2'), {
        items: [{ key: { partition: 'q2', sort: 'a' }, value: {}, version: 1 }],
      });
    });

    it('pages with a limit and a cursor, both ways, each item once', async () => {
      for (let i = 0; i < 10; i++) await table.put({ partition: 'page', sort: `k${i}` }, { i });
      const expected = Array.from({ length: 10 }, (_, i) => `k${i}`);
      for (const limit of [1, 3, 10, 11]) {
        assert.deepEqual(await sorts('page', { limit }), expected);
        assert.deepEqual(await sorts('page', { limit, reverse: true }), [...expected].reverse());
        assert.deepEqual(await sorts('page', { limit, prefix: 'k', before: 'k7' }), expected.slice(0, 7));
      }
      const first = await table.query('page', { limit: 4 });
      assert.equal(first.items.length, 4);
      await table.delete({ partition: 'page', sort: 'k3' }); // where the cursor stands
      const rest = await table.query('page', { cursor: first.next! });
      assert.deepEqual(
        rest.items.map((item) => item.key.sort),
        expected.slice(4),
      );
      assert.equal(rest.next, undefined);
    });

    it('refuses a cursor that is none or of another partition', async () => {
      for (const sort of ['a', 'b']) await table.put({ partition: 'cursor', sort }, {});
      const { next } = await table.query('cursor', { limit: 1 });
      assert.ok(next);
      await assert.rejects(table.query('cursor-2', { cursor: next }), failsWith('usage'));
      await assert.rejects(table.query('cursor', { cursor: 'nonsense' }), failsWith('usage'));
      await assert.rejects(table.query('cursor', { limit: 0 }), failsWith('usage'));
    });

    it('ends a page at 1 MB', async () => {
      const text = 'x'.repeat(300_000);
      for (let i = 0; i < 5; i++) await table.put({ partition: 'megabyte', sort: `${i}` }, { text });
      const first = await table.query('megabyte');
      assert.ok(first.items.length === 3 && first.next !== undefined, `${first.items.length} items`);
      assert.equal((await all('megabyte')).length, 5);
    });

    it('transacts all or nothing, and names the action that failed', async () => {
      const key = (sort: string) => ({ partition: 'transact', sort });
      await table.put(key('a'), { n: 1 });
      await table.put(key('b'), { n: 1 });
      await table.transact([
        { put: key('a'), value: { n: 2 }, ifVersion: 1 },
        { delete: key('b'), ifVersion: 1 },
        { put: key('c'), value: { n: 1 }, ifAbsent: true },
        { check: key('d'), ifAbsent: true },
      ]);
      assert.deepEqual(await sorts('transact'), ['a', 'c']);

      const failing: [TableAction, number][] = [
        [{ put: key('c'), value: {}, ifAbsent: true }, 2],
        [{ put: key('c'), value: {}, ifVersion: 9 }, 2],
        [{ delete: key('c'), ifVersion: 9 }, 2],
        [{ check: key('c'), ifVersion: 9 }, 2],
        [{ check: key('c'), ifAbsent: true }, 2],
        [{ check: key('absent'), ifVersion: 1 }, 2],
      ];
      for (const [action, index] of failing) {
        const actions: TableAction[] = [{ put: key('a'), value: { n: 'lost' } }, { delete: key('b') }, action];
        await assert.rejects(table.transact(actions), (error) => {
          assert.ok(isHoldfastError(error, 'conflict'));
          assert.equal(error.data.index, index);
          return true;
        });
      }
      assert.deepEqual((await table.get(key('a')))!.value, { n: 2 });
    });

    it('shows no half of a transaction to a reader', async () => {
      const keys = ['x', 'y'].map((sort) => ({ partition: 'half', sort }));
      const write = (n: number) => table.transact(keys.map((put) => ({ put, value: { n } })));
      await write(0);
      let done = false;
      const writer = (async () => {
        for (let n = 1; n <= 30; n++) await write(n);
        done = true;
      })();
      while (!done) {
        const { items } = await table.query('half');
        assert.equal(items[0]!.value.n, items[1]!.value.n);
        await new Promise((resolve) => setImmediate(resolve));
      }
      await writer;
    });

    it('holds the limits of a transaction', async () => {
      const puts = (count: number, value: JsonObject): TableAction[] =>
        Array.from({ length: count }, (_, i) => ({ put: { partition: 'limits', sort: `${i}` }, value }));
      await table.transact(puts(TABLE_TRANSACTION_MAX_ACTIONS, {}));
      await assert.rejects(table.transact(puts(TABLE_TRANSACTION_MAX_ACTIONS + 1, {})), failsWith('limit'));
      await assert.rejects(table.transact(puts(12, { text: 'x'.repeat(380_000) })), failsWith('limit'));
      await assert.rejects(table.transact([]), failsWith('usage'));
      const twice = { partition: 'limits', sort: '1' };
      await assert.rejects(table.transact([{ put: twice, value: {} }, { check: twice }]), failsWith('usage'));
    });

    it('holds the limits of items and keys', async () => {
      const key = { partition: 'limits', sort: 'big' };
      await table.put(key, { text: 'x'.repeat(399_000) });
      await assert.rejects(table.put(key, { text: 'x'.repeat(401_000) }), failsWith('limit'));
      await assert.rejects(table.put(key, { text: 'é'.repeat(201_000) }), failsWith('limit'));
      const longest = 'k'.repeat(TABLE_KEY_MAX_BYTES);
      await table.put({ partition: longest, sort: longest }, {});
      assert.ok(await table.get({ partition: longest, sort: longest }));
      for (const bad of [`${longest}k`, '']) {
        const code = bad === '' ? 'usage' : 'limit';
        await assert.rejects(table.put({ partition: bad, sort: 'a' }, {}), failsWith(code));
        await assert.rejects(table.put({ partition: 'a', sort: bad }, {}), failsWith(code));
        await assert.rejects(table.get({ partition: 'a', sort: bad }), failsWith(code));
      }
    });

    it('refuses values that are not plain JSON instead of changing them silently', async () => {
      const key = { partition: 'json', sort: 'a' };
      const bad = [undefined, Number.NaN, Number.POSITIVE_INFINITY, 1n, () => 1, new Date(0), new Map(), '\ud800'];
      for (const inner of bad) {
        await assert.rejects(table.put(key, { list: [inner] } as never), failsWith('usage'), String(inner));
      }
      for (const value of [null, [], 'text', 1]) {
        await assert.rejects(table.put(key, value as never), failsWith('usage'));
      }
      assert.equal(await table.get(key), undefined);
    });

    it('hides an expired item from every reader and every condition', async (t) => {
      const { clock } = fixture;
      if (clock === undefined) return t.skip('this store judges expiry by its own time');
      const key = { partition: 'expiry', sort: 'a' };
      const now = Math.floor(clock.nowMs() / 1000);
      await table.put(key, { n: 1 }, { expiresAtSeconds: now + 10 });
      await table.put({ partition: 'expiry', sort: 'b' }, {});
      assert.ok(await table.get(key));
      clock.advance(11_000);
      assert.equal(await table.get(key), undefined);
      assert.deepEqual(await sorts('expiry'), ['b']);
      await assert.rejects(table.put(key, {}, { ifVersion: 1 }), failsWith('conflict'));
      await assert.rejects(table.delete(key, { ifVersion: 1 }), failsWith('conflict'));
      await assert.rejects(table.transact([{ check: key, ifVersion: 1 }]), failsWith('conflict'));
      await table.transact([{ check: key, ifAbsent: true }]);
      assert.equal((await table.put(key, { n: 2 }, { ifAbsent: true })).version, 1);
      clock.advance(1_000_000);
      assert.ok(await table.get(key), 'a put without expiry ends the expiry before it');
    });
  });
}
