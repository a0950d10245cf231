import { relative } from 'node:path';
import type { TestEvent } from 'node:test/reporters';
import { inspect } from 'node:util';

interface Ended {
  readonly name: string;
  readonly file?: string;
  readonly skip?: string | boolean;
  readonly todo?: string | boolean;
  readonly details: { readonly duration_ms: number; readonly type?: string; readonly error?: Error };
}

interface FileTally {
  passed: number;
  failed: number;
  skipped: number;
  ms: number;
}

/**
 * A test reporter: one line a file, failures in full, then the skipped tests with their reasons (a skipped test is
 * not a passed one, and nobody should take it for that), then the counts.
 */
export default async function* report(source: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  const tallies = new Map<string, FileTally>();
  const skipped = new Map<string, string[]>();
  const failures: string[] = [];
  for await (const { type, data } of source) {
    if (type === 'test:pass' || type === 'test:fail') {
      const ended = data as unknown as Ended;
      if (isSuite(ended)) continue;
      const file = place(ended.file);
      const tally = tallies.get(file) ?? { passed: 0, failed: 0, skipped: 0, ms: 0 };
      tallies.set(file, tally);
      tally.ms += ended.details.duration_ms;
      if (ended.skip !== undefined && ended.skip !== false) {
        tally.skipped++;
        const reason = typeof ended.skip === 'string' && ended.skip !== '' ? ended.skip : 'no reason given';
        skipped.set(reason, [...(skipped.get(reason) ?? []), `${file}: ${ended.name}`]);
      } else if (type === 'test:pass' || ended.todo) tally.passed++;
      else {
        tally.failed++;
        failures.push(`✖ ${file}: ${ended.name}\n${indent(reasonOf(ended.details.error))}\n`);
        yield `✖ ${file}: ${ended.name}\n`;
      }
    } else if (type === 'test:diagnostic' && (data as { level?: string }).level !== 'info') {
      yield `⚠ ${data.message}\n`;
    } else if (type === 'test:stderr') {
      yield (data as { message: string }).message;
    } else if (type === 'test:summary') {
      const { file, counts, duration_ms } = data as unknown as {
        file?: string;
        counts: Record<string, number>;
        duration_ms: number;
      };
      if (file !== undefined) yield fileLine(place(file), tallies.get(place(file)), duration_ms);
      else yield* summary(failures, skipped, counts, duration_ms);
    }
  }
}

/** A group of tests, or a test that failed only because one inside it did: the inner one is reported. */
function isSuite({ details }: Ended): boolean {
  const failureType = (details.error as { failureType?: string } | undefined)?.failureType;
  return details.type === 'suite' ? failureType !== 'hookFailed' : failureType === 'subtestsFailed';
}

function place(file: string | undefined): string {
  return file === undefined ? '(run)' : relative(process.cwd(), file);
}

function fileLine(file: string, tally: FileTally | undefined, ms: number): string {
  const { passed = 0, failed = 0, skipped = 0 } = tally ?? {};
  const counts = [`${passed} passed`, failed > 0 ? `${failed} FAILED` : '', skipped > 0 ? `${skipped} skipped` : ''];
  const mark = failed > 0 ? '✖' : '✔';
  return `${mark} ${file} (${counts.filter((text) => text !== '').join(', ')}, ${(ms / 1000).toFixed(1)} s)\n`;
}

function* summary(
  failures: readonly string[],
  skipped: ReadonlyMap<string, readonly string[]>,
  counts: Readonly<Record<string, number>>,
  ms: number,
): Generator<string> {
  if (failures.length > 0) yield `\nFailed:\n${failures.join('\n')}`;
  if (skipped.size > 0) yield '\nSkipped:\n';
  for (const [reason, tests] of skipped) yield `﹣ ${reason}\n${tests.map((test) => `    ${test}\n`).join('')}`;
  const shown = ['tests', 'suites', 'passed', 'failed', 'cancelled', 'skipped', 'todo'] as const;
  const labels: Readonly<Record<string, string>> = { passed: 'pass', failed: 'fail' };
  yield '\n';
  for (const key of shown) yield `ℹ ${labels[key] ?? key} ${counts[key] ?? 0}\n`;
  yield `ℹ duration_ms ${ms}\n`;
}

function reasonOf(error: Error | undefined): string {
  const cause = error?.cause ?? error;
  return cause instanceof Error ? (cause.stack ?? inspect(cause)) : inspect(cause);
}

function indent(text: string): string {
  return text.replace(/^/gm, '    ');
}
