import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { Database } from '#local/database/database.ts';
import { SqliteQueue } from '#local/sqlite-queue.ts';
import { SqliteTable } from '#local/sqlite-table.ts';
import { systemClock } from '#local/system-clock.ts';
import { systemRandom } from '#local/system-random.ts';
import { seeded, startChild } from './child.ts';

describe('A table and queue in a process that is killed', { timeout: 60_000 }, () => {
  it('hold every acknowledged write, and no half of a transaction', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'holdfast-table-'));
    try {
      const path = join(folder, 'db');
      const random = seeded(3);
      let acknowledged = 0;
      for (let round = 0; round < 15; round++) {
        const child = startChild('./table-child.ts', [path, `${round}`]);
        await child.ready;
        await pause(random() * 60);
        child.kill();
        await child.ended;
        acknowledged += child.lines.length;

        using database = new Database(path);
        const table = new SqliteTable(database, systemClock);
        const left = await sorts(table, `left-${round}`);
        assert.deepEqual(left, await sorts(table, `right-${round}`));
        const queue = new SqliteQueue(database, systemClock, systemRandom);
        const bodies: string[] = [];
        for (;;) {
          const some = await queue.receive(`queue-${round}`, { max: 10, visibilitySeconds: 60 });
          if (some.length === 0) break;
          bodies.push(...some.map((message) => message.body));
        }
        assert.equal(new Set(bodies).size, bodies.length);
        for (const line of child.lines) {
          const [what, i = ''] = line.split(' ');
          assert.ok((what === 'item' ? left : bodies).includes(i), line);
        }
      }
      assert.ok(acknowledged > 100, `${acknowledged} writes`);
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});

async function sorts(table: SqliteTable, partition: string): Promise<string[]> {
  const found: string[] = [];
  for (let cursor: string | undefined; ; ) {
    const page = await table.query(partition, cursor === undefined ? {} : { cursor });
    found.push(...page.items.map((item) => item.key.sort));
    cursor = page.next;
    if (cursor === undefined) return found;
  }
}
