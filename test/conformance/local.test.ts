import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openFileBlobs } from '#local/file-blobs.ts';
import { systemClock } from '#local/system-clock.ts';
import { systemRandom } from '#local/system-random.ts';
import { blobsConformance } from './blobs.ts';

const settings = { clock: systemClock, random: systemRandom };

blobsConformance('FileBlobs', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'holdfast-blobs-'));
  const blobs = await openFileBlobs(join(folder, 'new', 'store'), settings);
  return {
    blobs,
    async dispose() {
      await blobs.close();
      await rm(folder, { recursive: true });
    },
  };
});
