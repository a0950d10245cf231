import { formatBytes, formatSeconds } from '#contract/quantity.ts';
import type { Contestant } from './contestants.ts';
import { FLOORS, isInstalled, writtenBytes } from './floors.ts';
import type { Images } from './images.ts';
import { measure } from './measure.ts';
import { emptyPlace, restoreSaved, save } from './place.ts';
import type { Results } from './results.ts';
import { SCENARIOS, type Scenario } from './scenarios.ts';

export interface Round {
  /** An empty folder on the same file system as the images. */
  readonly work: string;
  readonly images: Images;
  readonly contestants: readonly Contestant[];
  readonly scenarios: readonly Scenario[];
  readonly results: Results;
  readonly signal: AbortSignal;
  readonly say: (text: string) => void;
}

/** Measures each floor once. */
export async function runFloors({ images, results, work, signal, say }: Round): Promise<void> {
  for (const floor of FLOORS) {
    if (!isInstalled(floor)) continue;
    const { stdout: _, stderr, ...cost } = await measure(floor.run(images.path('base')), work, signal);
    results.add(floor.name, 'floor', { ...cost, grownBytes: writtenBytes(stderr) ?? 0 });
    say(`  ${floor.name}: ${formatSeconds(cost.wall)}`);
  }
}

/** One round: scenario by scenario, and in each the contestants one after the other, so that all meet the same moods of the machine. */
export async function runRound({ work, images, contestants, scenarios, results, signal, say }: Round): Promise<void> {
  const fulls = scenarios.some(({ name, from }) => name === 'full' || from === 'full');
  const full = SCENARIOS.find(({ name }) => name === 'full')!;
  for (const scenario of fulls ? [full, ...scenarios.filter((one) => one !== full)] : scenarios) {
    for (const contestant of contestants) {
      if (scenario.needsChangeLists && !contestant.takesChangeLists) continue;
      if (scenario.oursOnly && contestant.name !== 'ours') continue;
      const place = emptyPlace(work, contestant.name);
      if (scenario.from === 'full') restoreSaved(place);
      const outcome = await scenario.run({ contestant, place, images, scratch: work, signal });
      if (scenario === full) save(place);
      results.add(contestant.name, scenario.name, outcome);
      const { wall, cpu, peakBytes, grownBytes } = outcome;
      const figures = `${formatSeconds(wall)}, processor ${formatSeconds(cpu)}, peak ${formatBytes(peakBytes)}`;
      say(`  ${scenario.title}, ${contestant.title}: ${figures}, grew ${formatBytes(grownBytes)}`);
    }
  }
}
