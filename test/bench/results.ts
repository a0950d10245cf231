import type { Outcome } from './scenarios.ts';
import { ratioOf, type Spread, spreadOf } from './statistics.ts';

type Figure = 'wall' | 'cpu' | 'peakBytes' | 'grownBytes';

/** What was measured, by contestant (or floor) and scenario, in the order of the rounds. */
export class Results {
  readonly #outcomes = new Map<string, Outcome[]>();

  add(contestant: string, scenario: string, outcome: Outcome): void {
    const key = `${contestant}/${scenario}`;
    this.#outcomes.set(key, [...(this.#outcomes.get(key) ?? []), outcome]);
  }

  of(contestant: string, scenario: string): readonly Outcome[] {
    return this.#outcomes.get(`${contestant}/${scenario}`) ?? [];
  }

  /** Median, smallest and largest of a figure, or undefined if it was not measured. */
  spread(contestant: string, scenario: string, figure: Figure): Spread | undefined {
    const values = this.#values(contestant, scenario, figure);
    return values.length === 0 ? undefined : spreadOf(values);
  }

  /** Their figure divided by ours, round by round. */
  ratio(theirs: string, ours: string, scenario: string, figure: Figure, theirScenario = scenario): Spread | undefined {
    return ratioOf(this.#values(theirs, theirScenario, figure), this.#values(ours, scenario, figure));
  }

  #values(contestant: string, scenario: string, figure: Figure): number[] {
    return this.of(contestant, scenario).map((outcome) => outcome[figure]);
  }

  /** Everything, for a file. */
  toJSON(): Record<string, readonly Outcome[]> {
    return Object.fromEntries(this.#outcomes);
  }
}
