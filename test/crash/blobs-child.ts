/** A process that works on a store of files: `put N`, `create N` or `count N` in the given folder. */

import { writeSync } from 'node:fs';
import { openFileBlobs } from '#local/file-blobs.ts';
import { systemClock } from '#local/system-clock.ts';
import { systemRandom } from '#local/system-random.ts';
import { partsFor } from './blobs-content.ts';

const [root = '', act = '', name = '', countText = ''] = process.argv.slice(2);
const count = Number(countText);
const say = (line: string) => writeSync(1, `${line}\n`);
await using blobs = await openFileBlobs(root, { clock: systemClock, random: systemRandom });
say('ready');

if (act === 'put') {
  // Four at a time, each told of as soon as it is acknowledged.
  let next = 0;
  const putNext = async () => {
    while (next < count) {
      const key = `${name}/${next % 7}/${next++}`;
      await blobs.putIfAbsent(key, partsFor(key));
      say(key);
    }
  };
  await Promise.all([putNext(), putNext(), putNext(), putNext()]);
} else if (act === 'create') {
  for (let i = 0; i < count; i++) {
    if ((await blobs.putIfAbsent(`shared/${i}`, [Buffer.from(name)])) === 'created') say(`${i}`);
  }
} else {
  for (let done = 0; done < count; ) {
    const found = await blobs.get('counter');
    const { total = 0 } = found === undefined ? {} : JSON.parse(Buffer.from(found.content).toString());
    const next = Buffer.from(JSON.stringify({ total: total + 1 }));
    if ((await blobs.replaceIf('counter', next, found?.version ?? null)) === undefined) continue;
    done++;
    say(`${total + 1}`);
  }
}
