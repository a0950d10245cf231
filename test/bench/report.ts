import { formatBytes, formatRate, formatSeconds } from '#contract/quantity.ts';
import type { Contestant } from './contestants.ts';
import { FLOORS } from './floors.ts';
import { goals, withRange } from './goals.ts';
import type { Images } from './images.ts';
import type { Results } from './results.ts';
import type { Scenario } from './scenarios.ts';

export interface Report {
  readonly results: Results;
  readonly images: Images;
  readonly contestants: readonly Contestant[];
  readonly scenarios: readonly Scenario[];
  readonly rounds: number;
  readonly machine: readonly string[];
}

/** The whole report in Markdown, which is also what the terminal shows. */
export function markdown(report: Report): string {
  return [
    '# Benchmarks',
    '',
    'Written by `npm run bench`; do not edit. GB = 10⁹ bytes. Medians of the rounds, with the smallest and the largest value.',
    '',
    ...setting(report),
    '## Goals',
    '',
    ...table(['goal', 'measured', 'met'], goals(report.results, report.images).map(goalRow)),
    '## Time and memory',
    '',
    ...table(
      ['scenario', ...report.contestants.map(({ title }) => title)],
      report.scenarios.map((one) => timeRow(report, one)),
    ),
    'Each cell: seconds (range) · processor seconds · peak memory.',
    '',
    '## Stored',
    '',
    ...table(
      ['scenario', ...report.contestants.map(({ title }) => title)],
      report.scenarios.filter(({ name }) => name !== 'restore').map((one) => storedRow(report, one)),
    ),
    'By how many bytes the repository grew, all its files counted.',
    '',
    '## Floors',
    '',
    ...table(['program', 'seconds', 'speed'], floorRows(report)),
    ...stages(report),
  ].join('\n');
}

function setting({ images, contestants, rounds, machine }: Report): string[] {
  const { base, sizeBytes } = images;
  const invented = base.madeUpBytes > 0 ? `, ${formatBytes(base.madeUpBytes)} made up` : '';
  return [
    ...machine.map((line) => `- ${line}`),
    `- ${rounds} interleaved round${rounds === 1 ? '' : 's'}; disks in the page cache; every restore compared with the original`,
    `- ${contestants.map(({ title, version }) => `${title}: ${version() ?? 'absent'}`).join('; ')}; all encrypt and authenticate`,
    `- disk: ext4 of ${formatBytes(sizeBytes)} with ${formatBytes(base.realBytes)} in ${base.files} files of an installed system and a database of ${formatBytes(base.databaseBytes)}${invented}`,
    `- day: ${formatBytes(images.changes('day').bytes)} changed in scattered runs of 4–64 KiB; OLTP day: ${formatBytes(images.changes('oltp').bytes)} in scattered 4 KiB pages`,
    `- sibling: a second machine, nine tenths of its files the same in another layout; 1 TiB: a sparse disk with ${formatBytes(sizeBytes / 8)} of data`,
    '',
  ];
}

function goalRow({ text, figure, met }: ReturnType<typeof goals>[number]): string[] {
  return [text, figure, met === undefined ? '–' : met ? 'yes' : '**no**'];
}

function timeRow({ results, contestants }: Report, { name, title }: Scenario): string[] {
  const cells = contestants.map((contestant) => {
    const wall = results.spread(contestant.name, name, 'wall');
    if (wall === undefined) return '–';
    const cpu = results.spread(contestant.name, name, 'cpu')!.median;
    const peak = results.spread(contestant.name, name, 'peakBytes')!.median;
    return `**${withRange(wall, formatSeconds)}** · ${formatSeconds(cpu)} · ${formatBytes(peak)}`;
  });
  return [title, ...cells];
}

function storedRow({ results, contestants }: Report, { name, title }: Scenario): string[] {
  const cells = contestants.map((contestant) => {
    const grown = results.spread(contestant.name, name, 'grownBytes');
    return grown === undefined ? '–' : formatBytes(grown.median);
  });
  return [title, ...cells];
}

function floorRows({ results, images }: Report): string[][] {
  return FLOORS.flatMap(({ name }) => {
    const wall = results.spread(name, 'floor', 'wall');
    if (wall === undefined) return [];
    const written = results.spread(name, 'floor', 'grownBytes')!.median;
    const size = written > 0 ? `, ${formatBytes(written)} written` : '';
    return [[`${name}${size}`, withRange(wall, formatSeconds), formatRate(images.sizeBytes / wall.median)]];
  });
}

/** Where ours spends its time: the worker seconds by stage that its result carries. */
function stages({ results, scenarios }: Report): string[] {
  const rows = scenarios.flatMap(({ name, title }) => {
    const details = results.of('ours', name).at(-1)?.details as { stats?: Stats } | undefined;
    const seconds = (details?.stats ?? (details as Stats | undefined))?.stageSeconds;
    if (seconds === undefined) return [];
    const parts = Object.entries(seconds)
      .filter(([, value]) => value >= 0.005)
      .sort(([, a], [, b]) => b - a);
    return [[title, parts.map(([stage, value]) => `${stage} ${value.toFixed(2)} s`).join(', ')]];
  });
  return rows.length === 0
    ? []
    : ['## Where our time goes', '', ...table(['scenario', 'worker seconds by stage'], rows)];
}

interface Stats {
  readonly stageSeconds?: Readonly<Record<string, number>>;
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line), ''];
}
