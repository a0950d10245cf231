import { randomBytes } from 'node:crypto';
import type { Random } from '#ports/random.ts';

/** The operating system's randomness, cryptographically strong. */
export const systemRandom: Random = {
  bytes: (length) => randomBytes(length),
  // 48 random bits: exact in a double, and never 1.
  fraction: () => randomBytes(6).readUIntBE(0, 6) / 2 ** 48,
};
