/** A median with the smallest and the largest of the values it stands for. */
export interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

export function spreadOf(values: readonly number[]): Spread {
  if (values.length === 0) throw new RangeError('no values');
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length / 2;
  const median = sorted.length % 2 === 1 ? sorted[Math.floor(middle)]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
  return { median, min: sorted[0]!, max: sorted.at(-1)! };
}

/** How many times as long theirs took as ours, round by round: what a machine's mood does to both falls out. */
export function ratioOf(theirs: readonly number[], ours: readonly number[]): Spread | undefined {
  const rounds = Math.min(theirs.length, ours.length);
  return rounds === 0 ? undefined : spreadOf(ours.slice(0, rounds).map((value, i) => theirs[i]! / value));
}
