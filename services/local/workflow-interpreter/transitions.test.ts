import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { machineSchema } from '#workflows/asl.ts';
import { Database } from '../database/database.ts';
import { systemClock } from '../system-clock.ts';
import { systemRandom } from '../system-random.ts';
import { ExecutionStore } from './store.ts';
import { Transitions } from './transitions.ts';

describe('An execution', () => {
  it('that runs in circles ends as failed at 25,000 events', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'holdfast-circles-'));
    const database = new Database(join(folder, 'db'));
    try {
      const circle = machineSchema.parse({
        StartAt: 'Again',
        States: {
          Again: { Type: 'Pass', Next: 'Check' },
          Check: {
            Type: 'Choice',
            Choices: [{ Variable: '$.stop', IsPresent: true, Next: 'Done' }],
            Default: 'Again',
          },
          Done: { Type: 'Succeed' },
        },
      });
      const store = new ExecutionStore(database);
      const transitions = new Transitions(store, systemClock, systemRandom);
      const steps = await database.write(() => {
        store.addExecution('circle', 'circle', circle, '{}', 0);
        const frame = { execution: 'circle', parent: null, position: 0, scope: [], item: null } as const;
        store.addFrame({ ...frame, state: 'Again', phase: 'ready', input: '{}', wakeMs: 0 });
        // All in one change, since this is about the count and not about the disk.
        for (let step = 0; ; step++) {
          const at = store.rootFrame('circle');
          if (at === undefined) return step;
          transitions.enter(at);
        }
      });
      assert.equal(steps, 12_500);
      const { status, error, cause } = store.execution('circle')!;
      assert.deepEqual([status, error], ['failed', 'States.Runtime']);
      assert.match(cause ?? '', /25000/);
    } finally {
      database.close();
      await rm(folder, { recursive: true });
    }
  });
});
