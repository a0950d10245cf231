import assert from 'node:assert/strict';
import { cp, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { SeededRandom } from '../random.ts';
import { makePlace } from './holdfast.ts';
import { startUp } from './running-up.ts';

test('what a control plane protected comes back from a copy of its objects and an exported key, without it', async (t) => {
  const place = await makePlace(t);
  const disk = new SeededRandom(9).fill(Buffer.alloc(3_333_333));
  await writeFile(place.path('disk.img'), disk);
  const data = place.path('data');
  {
    await using up = await startUp(data);
    const source = await up.client.createSource({ kind: 'image', name: 'here', proxy: up.proxy });
    const machine = await up.client.createMachine({
      name: 'web 1',
      source: source.id,
      disks: [{ name: 'disk 0', path: place.path('disk.img') }],
    });
    const run = await up.client.runNow([machine.id]);
    assert.equal((await up.client.waitForJob(run.jobs[0]!.id)).state.status, 'succeeded');
    const exported = await place.run('export-key', '--data', data, '--key-file', place.path('out.key'), '--json');
    assert.equal(exported.code, 0, exported.stderr);
    assert.equal((await stat(place.path('out.key'))).mode & 0o777, 0o600);
    const again = await place.run('export-key', '--data', data, '--key-file', place.path('out.key'));
    assert.equal(again.code, 1, 'a key file is never overwritten');
    assert.ok(!exported.stdout.toString().includes(JSON.parse(await readFile(place.path('out.key'), 'utf8')).keys));
  }
  const copy = place.path('copied-bucket');
  await cp(join(data, 'objects'), copy, { recursive: true });
  const vault = ['--repo', copy, '--key-file', place.path('out.key')];
  const points = await place.run('vault', 'points', ...vault, '--machine', 'web 1', '--json');
  assert.equal(points.result.points.length, 1, points.stderr);
  const byName = await place.run('recover', ...vault, '--machine', 'web 1', '--to', place.path('restored.img'));
  assert.equal(byName.code, 0, byName.stderr);
  assert.ok((await readFile(place.path('restored.img'))).equals(disk));
  const byId = await place.run('recover', ...vault, '--machine', points.result.points[0].machineId, '--to', '-');
  assert.ok(byId.stdout.equals(disk));
  const sound = await place.run('vault', 'verify', '--read-data', ...vault);
  assert.equal(sound.code, 0, sound.stderr);
});
