import type { Edge, Graph } from './graph.ts';
import { EXEMPT_FROM_BANS, FORBIDDEN_WORDS, MAX_LINES, ROOMS, ROOTS, type Room } from './rooms.ts';

/** The room a file lives in, or undefined if nobody planned one for it. The longest matching path wins. */
export function roomOf(path: string): Room | undefined {
  return ROOMS.filter(({ at }) => path === at || path.startsWith(`${at}/`)).sort(
    (a, b) => b.at.length - a.at.length,
  )[0];
}

export function isTest(path: string): boolean {
  return path.startsWith('test/') || /\.test\.tsx?$/.test(path);
}

function isRoot(path: string): boolean {
  return ROOTS.some(({ path: root }) => covers(root, path));
}

/** True if the pattern names this file: a path, or a folder when it ends with a slash. */
function covers(pattern: string, path: string): boolean {
  return pattern.endsWith('/') ? path.startsWith(pattern) : path === pattern;
}

/** Files outside every room, with a forbidden name, or longer than the limit. */
export function misplacedFiles(files: readonly { path: string; lines: number }[]): string[] {
  return files.flatMap(({ path, lines }) => {
    const words = path.toLowerCase().split(/[/.-]/);
    const name = path.split('/').at(-1)!;
    return [
      ...(roomOf(path) === undefined ? [`${path} is in no known room`] : []),
      ...words
        .filter((word) => FORBIDDEN_WORDS.includes(word))
        .map((word) => `${path}: "${word}" says nothing; name what it is`),
      ...(/^index\.tsx?$/.test(name) ? [`${path}: no barrel files; import the module that has it`] : []),
      ...(lines > MAX_LINES ? [`${path} has ${lines} lines; split it (at most ${MAX_LINES})`] : []),
    ];
  });
}

/** Imports that go against the directions between rooms, and imports of tests by what is not a test. */
export function wrongDirections(edges: readonly Edge[]): string[] {
  return edges.flatMap((edge) => {
    const { from, to, isFile } = edge;
    if (isFile && isTest(to)) return isTest(from) ? [] : [`${from} imports the test ${to}`];
    if (isTest(from) || isRoot(from)) return [];
    const room = roomOf(from);
    if (room === undefined) return [];
    return isFile ? wrongFile(room, edge) : wrongPackage(room, from, to);
  });
}

function wrongFile(room: Room, { from, to }: Edge): string[] {
  const target = roomOf(to);
  if (target === undefined || target.at === room.at || room.files.includes(target.at)) return [];
  return [`${from} imports ${to}: ${room.at} may import ${room.files.join(', ') || 'no other room'} only`];
}

function wrongPackage(room: Room, from: string, name: string): string[] {
  const base = name.startsWith('node:') ? 'node' : packageName(name);
  if (room.packages === 'any' || room.packages.includes(base) || room.packages.includes(name)) return [];
  return [`${from} imports ${name}: ${room.at} may import ${room.packages.join(', ') || 'no package'} only`];
}

function packageName(path: string): string {
  return path.split('/', path.startsWith('@') ? 2 : 1).join('/');
}

/** Cycles of static imports, each once, as `a → b → a`. Type-only imports vanish at run time and may go round. */
export function cycles({ files, edges }: Pick<Graph, 'files' | 'edges'>): string[] {
  const next = new Map<string, string[]>(files.map((file) => [file, []]));
  for (const { from, to, isFile, kind } of edges) if (isFile && kind === 'static') next.get(from)?.push(to);
  const state = new Map<string, 'open' | 'done'>();
  const found: string[] = [];
  const walk = (file: string, trail: readonly string[]): void => {
    state.set(file, 'open');
    for (const target of next.get(file) ?? []) {
      if (state.get(target) === 'open') found.push([...trail.slice(trail.indexOf(target)), target].join(' → '));
      else if (!state.has(target)) walk(target, [...trail, target]);
    }
    state.set(file, 'done');
  };
  for (const file of files) if (!state.has(file)) walk(file, [file]);
  return found;
}

/** A use of a global that only roots and adapters may make, or undefined. */
export function bannedUse(path: string, global: string, text: string): string | undefined {
  if (isTest(path)) return undefined;
  // Turning a given moment into a calendar and back is pure; only asking what time it is needs the Clock.
  if (global === 'Date' && /^(new Date\([^)]|Date\.(UTC|parse)\b)/.test(text)) return undefined;
  if (EXEMPT_FROM_BANS.some((entry) => entry.globals.includes(global) && covers(entry.path, path))) return undefined;
  return `${path} uses ${text.trim()}: take a Clock, Random or setting instead`;
}

/** Imports that would go round {@link bannedUse}. */
export function bannedImports(edges: readonly Edge[]): string[] {
  const stands: Readonly<Record<string, string>> = {
    'node:timers': 'setTimeout',
    'node:timers/promises': 'setTimeout',
    'node:process': 'process.env',
    'node:perf_hooks': 'performance',
  };
  return edges.flatMap(({ from, to, isFile, kind }) => {
    const global = stands[to];
    if (isFile || kind === 'type' || global === undefined) return [];
    return bannedUse(from, global, `the import ${to}`) ?? [];
  });
}
