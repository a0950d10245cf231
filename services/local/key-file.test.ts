import assert from 'node:assert/strict';
import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { isHoldfastError } from '#contract/errors.ts';
import { openKeyFile } from './key-file.ts';
import { systemRandom } from './system-random.ts';

describe('The key file', () => {
  let folder: string;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'holdfast-key-'));
  });
  after(() => rm(folder, { recursive: true }));

  it('is made once, for its owner only, and is the same key ever after', async () => {
    const path = join(folder, 'once');
    const opened = await Promise.all(Array.from({ length: 5 }, () => openKeyFile(path, systemRandom)));
    assert.equal((await stat(path)).mode & 0o777, 0o600);
    assert.deepEqual(
      (await readdir(folder)).filter((name) => name.startsWith('once')),
      ['once'],
    );
    const wrapped = await opened[0]!.wrap(Buffer.from('x'), {});
    for (const keys of [...opened, await openKeyFile(path, systemRandom)]) {
      assert.equal(Buffer.from(await keys.unwrap(wrapped, {})).toString(), 'x');
      assert.deepEqual(keys.secretFor('grants'), opened[0]!.secretFor('grants'));
    }
    assert.notDeepEqual(opened[0]!.secretFor('grants'), opened[0]!.secretFor('sessions'));
  });

  it('is refused if others may read it, with the command that mends it', async () => {
    const path = join(folder, 'open');
    await openKeyFile(path, systemRandom);
    await chmod(path, 0o640);
    await assert.rejects(openKeyFile(path, systemRandom), (error) => {
      assert.ok(isHoldfastError(error, 'forbidden'));
      assert.match(error.remedy ?? '', /chmod 600/);
      return true;
    });
  });

  it('is never replaced when it is damaged, and its content is not told', async () => {
    const path = join(folder, 'damaged');
    for (const text of ['', '{"format":"holdfast-service-key","version":1,"key":"c2VjcmV0"}', 'secret']) {
      await writeFile(path, text, { mode: 0o600 });
      await assert.rejects(openKeyFile(path, systemRandom), (error) => {
        assert.ok(isHoldfastError(error, 'damaged'));
        assert.equal(/secret|c2VjcmV0/.test(JSON.stringify(error) + error.message), false);
        return true;
      });
      assert.equal(await readFile(path, 'utf8'), text);
    }
  });
});
