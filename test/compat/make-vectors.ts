/** Writes the test vectors: `node test/compat/make-vectors.ts`. Those of a released version are never written again. */

import { writeFile } from 'node:fs/promises';
import { zstdCompressSync } from 'node:zlib';
import { makeVectors } from './vectors.ts';

const vectors = await makeVectors(zstdCompressSync(Buffer.alloc(8192, 'a')));
for (const [name, value] of Object.entries(vectors))
  await writeFile(new URL(`./vectors/${name}.json`, import.meta.url), `${JSON.stringify(value, null, 2)}\n`);
