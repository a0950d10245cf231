/** Randomness, handed in from the composition root. */
export interface Random {
  /** `length` bytes; cryptographically strong in production, seeded in tests. */
  bytes(length: number): Uint8Array;
  /** A number in [0, 1), for jitter and sampling. */
  fraction(): number;
}
