import { parseArgs } from 'node:util';
import { makeSmallVault, type SmallVault } from '../damage/small-vault.ts';
import { anotherOf, flipped, type Outcome, tryRead, tryRestore, tryVerify } from '../damage/trial.ts';

export interface DamageCounts {
  flips: number;
  truncations: number;
  deletions: number;
  replacements: number;
  /** Reads of a whole disk in this process, as `vault serve` does them. */
  reads: number;
  /** Restores by worker threads, as `vault restore` does them. */
  restores: number;
  verifications: number;
  /** Disks that came out bit-exact although an object was damaged, and disks that were refused with a typed error. */
  exact: number;
  refused: number;
  /** Damages that a verification reported, and such that it need not report. */
  reported: number;
  harmless: number;
  /** Wrong bytes, errors that are not typed or name too little, hangs, damage that a verification did not see. */
  readonly failures: string[];
}

export interface DamageOptions {
  readonly seed: number;
  /** Bits that are flipped, spread evenly over all objects. */
  readonly flips: number;
  /** Of so many flips one is restored by the restore itself, one verified. */
  readonly restoreEvery: number;
  readonly verifyEvery: number;
  /** Of so many objects cut, gone or replaced, one is read for all its disks, restored and verified. */
  readonly wholeEvery: number;
  readonly onDamage?: (done: number) => void;
}

/**
 * Damages every object of a small vault in turn and reads, restores and verifies it. Which bits are flipped
 * follows from the seed and the sizes of the objects.
 */
export async function damageCampaign(options: DamageOptions): Promise<DamageCounts> {
  await using small = await makeSmallVault(options.seed);
  const counts: DamageCounts = {
    flips: 0,
    truncations: 0,
    deletions: 0,
    replacements: 0,
    reads: 0,
    restores: 0,
    verifications: 0,
    exact: 0,
    refused: 0,
    reported: 0,
    harmless: 0,
    failures: [],
  };
  const trial = async (key: string, content: Buffer | undefined, what: string, how: Ways): Promise<void> => {
    small.blobs.damage(key, content);
    try {
      await tryAll(small, key, what, how, counts);
    } finally {
      small.blobs.heal();
    }
  };
  let whole = 0;
  const next = (): Ways => {
    const thorough = whole++ % options.wholeEvery === 0;
    return { readAll: thorough, restores: thorough ? 1 : 0, verify: thorough };
  };
  for (const [key, content] of small.objects) {
    for (const length of [0, 1, content.length >>> 1, content.length - 1]) {
      counts.truncations++;
      await trial(key, content.subarray(0, length), `cut to ${length}`, next());
    }
    counts.deletions++;
    await trial(key, undefined, 'deleted', next());
    const other = anotherOf(small, key);
    if (other === undefined) continue;
    counts.replacements++;
    await trial(key, other, 'replaced', next());
  }
  const objects = [...small.objects];
  for (let i = 0; i < options.flips; i++) {
    const [key, content] = objects[i % objects.length]!;
    const bit = bitOf(small, content.length);
    counts.flips++;
    await trial(key, flipped(content, bit), `bit ${bit} flipped`, {
      readAll: false,
      restores: i % options.restoreEvery === 0 ? 1 : 0,
      verify: i % options.verifyEvery === 0,
    });
    options.onDamage?.(i + 1);
  }
  return counts;
}

/** Half of the flips anywhere, the others in the first or last bytes: headers, footers, trailers, signatures. */
function bitOf({ random }: SmallVault, bytes: number): number {
  const edge = Math.min(bytes, 256);
  const at = random.pick([
    random.below(bytes),
    random.below(bytes),
    random.below(edge),
    bytes - 1 - random.below(edge),
  ]);
  return at * 8 + random.below(8);
}

interface Ways {
  /** Read every disk that needs the object, or one of them. */
  readonly readAll: boolean;
  readonly restores: number;
  readonly verify: boolean;
}

async function tryAll(small: SmallVault, key: string, what: string, how: Ways, counts: DamageCounts): Promise<void> {
  const { disks, needs, random } = small;
  const concerned = disks.filter((_, i) => needs[i]!.has(key));
  const fail = (why: string) => void counts.failures.push(`${key}, ${what}: ${why}`);
  const count = (outcome: Outcome) => {
    if (outcome.kind === 'wrong') fail(outcome.why);
    else counts[outcome.kind]++;
    return outcome.kind === 'refused';
  };
  let refused = false;
  for (const disk of how.readAll ? concerned : [random.pick(concerned)]) {
    counts.reads++;
    if (count(await tryRead(small, disk))) refused = true;
  }
  for (let i = 0; i < how.restores; i++) {
    counts.restores++;
    if (count(await tryRestore(small, random.pick(concerned), key))) refused = true;
  }
  if (!how.verify) return;
  counts.verifications++;
  const verdict = await tryVerify(small);
  if (typeof verdict === 'object') fail(`verification threw ${verdict.wrong}`);
  else if (verdict === 'reported') counts.reported++;
  else if (isHarmless(key, what, refused)) counts.harmless++;
  else fail('verification finds all sound');
}

/**
 * What a verification may pass over: a state that is gone (it is made anew from the index) or says the same in other
 * characters, and a point that is gone, for that is how `vault delete` leaves it.
 */
function isHarmless(key: string, what: string, refused: boolean): boolean {
  if (key.startsWith('points/')) return what === 'deleted';
  return key.startsWith('state/') && !refused;
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: { flips: { type: 'string', default: '10000' }, seed: { type: 'string', default: '1' } },
  });
  const started = performance.now();
  const seconds = () => Math.round((performance.now() - started) / 1000);
  const result = await damageCampaign({
    seed: Number(values.seed),
    flips: Number(values.flips),
    restoreEvery: 41,
    verifyEvery: 101,
    wholeEvery: 1,
    onDamage: (done) => void (done % 500 === 0 && console.error(`${done} flips, ${seconds()} s`)),
  });
  console.log(JSON.stringify({ ...result, seconds: seconds() }, null, 2));
  process.exitCode = result.failures.length === 0 ? 0 : 1;
}
