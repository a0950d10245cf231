/** A process that writes to a table and a queue as fast as it can, telling what was acknowledged. */

import { writeSync } from 'node:fs';
import { Database } from '#local/database/database.ts';
import { SqliteQueue } from '#local/sqlite-queue.ts';
import { SqliteTable } from '#local/sqlite-table.ts';
import { systemClock } from '#local/system-clock.ts';
import { systemRandom } from '#local/system-random.ts';

const [path = '', round = ''] = process.argv.slice(2);
const database = new Database(path);
const table = new SqliteTable(database, systemClock);
const queue = new SqliteQueue(database, systemClock, systemRandom);
writeSync(1, 'ready\n');
for (let i = 0; ; i++) {
  const value = { i };
  await Promise.all([
    // Two items that belong together, and a message.
    table
      .transact([
        { put: { partition: `left-${round}`, sort: `${i}` }, value, ifAbsent: true },
        { put: { partition: `right-${round}`, sort: `${i}` }, value, ifAbsent: true },
      ])
      .then(() => writeSync(1, `item ${i}\n`)),
    queue.send(`queue-${round}`, `${i}`).then(() => writeSync(1, `message ${i}\n`)),
  ]);
}
