import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { HoldfastError, isHoldfastError } from '#contract/errors.ts';
import { Database } from './database.ts';

describe('The database of the embedded control plane', () => {
  let folder: string;
  let database: Database;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'holdfast-group-'));
    database = new Database(join(folder, 'db'));
    database.define('CREATE TABLE numbers (n INTEGER PRIMARY KEY) STRICT');
  });
  after(async () => {
    database.close();
    await rm(folder, { recursive: true });
  });

  const add = (n: number) => database.write(() => database.statement('INSERT INTO numbers VALUES (?)').run(n));
  const numbers = () =>
    database.read(() =>
      database
        .statement('SELECT n FROM numbers ORDER BY n')
        .all()
        .map((row) => row.n),
    );

  it('commits what is asked for in one turn together, each change seeing those before it', async () => {
    const seen = await Promise.all([1, 2, 3].map((n) => add(n).then(() => numbers().length)));
    assert.deepEqual(seen, [3, 3, 3]);
  });

  it('refuses one change without the others', async () => {
    const answers = await Promise.allSettled([
      add(10),
      database.write(() => {
        throw new HoldfastError('conflict', 'not this one');
      }),
      add(11),
    ]);
    assert.deepEqual(
      answers.map((answer) => answer.status),
      ['fulfilled', 'rejected', 'fulfilled'],
    );
  });

  it('undoes a change that broke in the middle, and only that one', async () => {
    const answers = await Promise.allSettled([
      add(20),
      database.write(() => {
        database.statement('INSERT INTO numbers VALUES (?)').run(21);
        database.statement('INSERT INTO numbers VALUES (?)').run(20); // taken
      }),
      add(22),
    ]);
    assert.deepEqual(
      answers.map((answer) => answer.status),
      ['fulfilled', 'rejected', 'fulfilled'],
    );
    assert.deepEqual(
      numbers().filter((n) => Number(n) >= 20),
      [20, 22],
    );
  });

  it('commits what waits when it is closed, and refuses what comes after', async () => {
    const other = new Database(join(folder, 'other'));
    other.define('CREATE TABLE numbers (n INTEGER PRIMARY KEY) STRICT');
    const waiting = other.write(() => other.statement('INSERT INTO numbers VALUES (1)').run());
    other.close();
    await waiting;
    assert.throws(
      () => other.read(() => 0),
      (error) => isHoldfastError(error, 'cancelled'),
    );
    using again = new Database(join(folder, 'other'));
    assert.equal(
      again.read(() => again.statement('SELECT n FROM numbers').all().length),
      1,
    );
  });

  it('says so if the file is no database', async () => {
    const path = join(folder, 'no-database');
    await writeFile(path, 'x'.repeat(5000));
    assert.throws(
      () => new Database(path),
      (error) => isHoldfastError(error, 'damaged'),
    );
  });
});
