import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { describe, it } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { seeded, startChild } from './child.ts';
import { EXECUTIONS, ITEMS, STEPS } from './workflows-machine.ts';

const KILLS = 50;
/** The tasks of an execution by the stage that they belong to; those of one stage run side by side. */
const STAGES = new Map<string, number>([
  ...Array.from({ length: STEPS }, (_, i) => [`S${i}`, i] as const),
  ['Token', STEPS],
  ...ITEMS.map((item) => [item, STEPS + 1] as const),
  ['second', STEPS + 1],
  ['Left', STEPS + 2],
  ['Right', STEPS + 2],
  ['Last', STEPS + 3],
]);

describe('Workflows in a process that is killed again and again', { timeout: 120_000 }, () => {
  it('reach exactly one end each, and run no completed task again', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'holdfast-workflows-'));
    try {
      const path = join(folder, 'db');
      const log = join(folder, 'log');
      const random = seeded(50);
      const ends = new Map<string, string>();
      let killedAtWork = 0;
      for (let kill = 0; kill < KILLS; kill++) {
        const child = startChild('./workflows-child.ts', [path, log, 'forever']);
        await child.ready;
        await pause(5 + random() * 70);
        child.kill();
        await child.ended;
        if (endsOf(path, ends) > 0) killedAtWork++;
      }
      assert.ok(killedAtWork >= KILLS * 0.9, `${killedAtWork} kills came while something was running`);
      const last = startChild('./workflows-child.ts', [path, log, 'until-ended']);
      assert.equal(await last.ended, 0);
      assert.equal(endsOf(path, ends), 0, 'nothing is still running');

      assert.equal(ends.size, EXECUTIONS);
      for (const [name, end] of ends) {
        if (name.endsWith('3')) assert.equal(end, 'failed AsItMust');
        else assert.match(end, new RegExp(`^succeeded .*"at":\\{"n":${STEPS + 2}\\}`), name);
      }
      const runs = checkOrder(await readFile(log, 'utf8'));
      const tasks = EXECUTIONS * (STEPS + 1 + 2 * ITEMS.length + 3);
      assert.ok(runs >= tasks && runs <= tasks + KILLS * EXECUTIONS * 3, `${runs} runs of ${tasks} tasks`);
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});

/** Reads how executions ended, checks that none ended differently before, and answers how many are running. */
function endsOf(path: string, ends: Map<string, string>): number {
  const database = new DatabaseSync(path);
  try {
    let running = 0;
    for (const row of database.prepare('SELECT name, status, output, error FROM executions').all()) {
      if (row.status === 'running') {
        assert.equal(ends.has(row.name as string), false, `${row.name} had ended`);
        running++;
        continue;
      }
      const end = `${row.status} ${row.output ?? row.error}`;
      assert.equal(ends.get(row.name as string) ?? end, end, `${row.name} ended twice`);
      ends.set(row.name as string, end);
    }
    return running;
  } finally {
    database.close();
  }
}

/** A task may run again only as long as nothing that follows it has begun. Answers the number of runs. */
function checkOrder(log: string): number {
  const reached = new Map<string, number>();
  const lines = log.trim().split('\n');
  for (const line of lines) {
    const [who = '', key = ''] = line.split(' ');
    const stage = STAGES.get(key);
    assert.ok(stage !== undefined, line);
    assert.ok(stage >= (reached.get(who) ?? 0), `${line} came after stage ${reached.get(who)}`);
    assert.ok(stage <= (reached.get(who) ?? 0) + 1, `${line} came before its time`);
    reached.set(who, stage);
  }
  return lines.length;
}
