import { createHash } from 'node:crypto';

/** The parts of the object under a key: sizes and bytes follow from the key, so that any process can check it. */
export function partsFor(key: string): Buffer[] {
  const seed = createHash('sha256').update(key).digest();
  return Array.from({ length: 1 + (seed[0]! % 64) }, (_, index) =>
    Buffer.alloc(1 + ((seed[index % 32]! * 257 + index * 101) % 30_000), seed.subarray(index % 16)),
  );
}
