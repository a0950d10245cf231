import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type Edge, globalUses, importGraph, sourceFiles } from './architecture/graph.ts';
import { BANNED_GLOBALS, EXEMPT_FROM_BANS } from './architecture/rooms.ts';
import { bannedImports, bannedUse, cycles, misplacedFiles, wrongDirections } from './architecture/rules.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const files = sourceFiles(root);
const sources = new Map(files.map((path) => [path, readFileSync(join(root, path), 'utf8')]));
const graph = await importGraph(root, files);

function lineCount(text: string): number {
  return text.split('\n').length - 1;
}

function edge(from: string, to: string, kind: Edge['kind'] = 'static'): Edge {
  return { from, to, kind, isFile: /\.ts$/.test(to) };
}

describe('the project', () => {
  test('keeps every file in a room, under a name that says something, and short', () => {
    assert.deepEqual(misplacedFiles(files.map((path) => ({ path, lines: lineCount(sources.get(path)!) }))), []);
  });

  test('imports in the agreed directions only', () => {
    assert.ok(graph.edges.length > files.length / 2, 'the graph has edges');
    assert.deepEqual(wrongDirections(graph.edges), []);
  });

  test('has no import cycles', () => {
    assert.deepEqual(cycles(graph), []);
  });

  test('imports nothing that is not there', () => {
    // The registry of verbs names commands whose parts may be absent from an installation.
    const open = graph.unresolved.filter(({ from }) => from !== 'services/local/commands/registry.ts');
    assert.deepEqual(open, []);
  });

  test('asks for time, chance and settings in roots and adapters only', async () => {
    const uses = await Promise.all(
      files.map(async (path) =>
        (await globalUses(sources.get(path)!, BANNED_GLOBALS)).map(({ global, text }) => bannedUse(path, global, text)),
      ),
    );
    assert.deepEqual(
      uses.flat().filter((use) => use !== undefined),
      [],
    );
    assert.deepEqual(bannedImports(graph.edges), []);
  });
});

describe('the rules', () => {
  test('find files without a room, with an empty name, that are barrels or too long', () => {
    const found = misplacedFiles([
      { path: 'services/contract/ids.ts', lines: 450 },
      { path: 'services/attic/ids.ts', lines: 1 },
      { path: 'services/app/string-utils.ts', lines: 1 },
      { path: 'edge-proxy/engine/index.ts', lines: 1 },
      { path: 'edge-proxy/engine/plan.ts', lines: 451 },
    ]);
    assert.equal(found.length, 4);
    assert.match(found.join('\n'), /attic.*no known room\n.*"utils".*\n.*barrel.*\n.*plan\.ts has 451/);
  });

  test('find imports against the directions', () => {
    const allowed = [
      edge('services/app/points.ts', 'services/domain/retention.ts'),
      edge('services/contract/ids.ts', 'zod'),
      edge('services/repository/pack.ts', 'node:crypto'),
      edge('edge-proxy/engine/plan.ts', 'services/repository/keys.ts', 'type'),
      edge('edge-proxy/commands/vault.ts', 'services/local/files.ts'),
      edge('services/local/main.ts', 'edge-proxy/main.ts'),
      edge('services/local/blobs.test.ts', 'test/conformance/blobs.ts'),
    ];
    assert.deepEqual(wrongDirections(allowed), []);
    const wrong = [
      edge('services/contract/ids.ts', 'node:crypto'),
      edge('services/contract/ids.ts', 'services/ports/clock.ts', 'type'),
      edge('services/domain/retention.ts', 'services/repository/keys.ts'),
      edge('services/repository/pack.ts', 'hono'),
      edge('services/app/api.ts', 'services/local/table.ts', 'dynamic'),
      edge('services/local/table.ts', 'edge-proxy/engine/plan.ts'),
      edge('edge-proxy/engine/plan.ts', 'services/app/api.ts'),
      edge('edge-proxy/engine/plan.ts', 'edge-proxy/agent/tasks.ts'),
      edge('web/page.ts', 'services/app/api.ts', 'type'),
      edge('services/local/main.ts', 'test/setup/peers.ts'),
      edge('services/app/api.ts', 'services/app/api.test.ts'),
    ];
    for (const one of wrong) assert.equal(wrongDirections([one]).length, 1, `${one.from} → ${one.to}`);
  });

  test('find cycles of imports, but not of types', () => {
    const round = [edge('a.ts', 'b.ts'), edge('b.ts', 'c.ts'), edge('c.ts', 'b.ts')];
    assert.deepEqual(cycles({ files: ['a.ts', 'b.ts', 'c.ts'], edges: round }), ['b.ts → c.ts → b.ts']);
    const types = [edge('a.ts', 'b.ts'), edge('b.ts', 'a.ts', 'type')];
    assert.deepEqual(cycles({ files: ['a.ts', 'b.ts'], edges: types }), []);
  });

  test('find true uses of banned globals, and no lookalikes', async () => {
    const source = `
      // Date.now() in a comment, 'Math.random()' in a string
      import { setTimeout } from './clock.ts';
      const when: Date = new Date(0);
      function f(process: { env: string }) { return process.env + "Math.random()"; }
      const now = Date.now() + new Date().getTime() + globalThis.Math.random() + Date.UTC(2020, 1);
      setInterval(() => process.exit(1), performance.now());
      setTimeout(f, 1);`;
    const uses = await globalUses(source, BANNED_GLOBALS);
    const banned = uses.map(({ global, text }) => (bannedUse('edge-proxy/engine/plan.ts', global, text) ? global : ''));
    assert.deepEqual(banned.filter((global) => global !== '').sort(), [
      'Date',
      'Date',
      'Math.random',
      'performance',
      'process.exit',
      'setInterval',
    ]);
  });

  test('let adapters, roots and tests use what they need, and nobody else go round by an import', () => {
    assert.equal(bannedUse('services/local/clock.ts', 'Date', 'Date.now()'), undefined);
    assert.equal(bannedUse('services/local/main.ts', 'process.env', 'process.env.HOME'), undefined);
    assert.equal(bannedUse('services/app/api.test.ts', 'setTimeout', 'setTimeout('), undefined);
    assert.match(bannedUse('services/local/table.ts', 'process.env', 'process.env.HOME') ?? '', /take a Clock/);
    assert.equal(bannedImports([edge('edge-proxy/agent/tasks.ts', 'node:timers/promises')]).length, 1);
    assert.equal(bannedImports([edge('edge-proxy/main.ts', 'node:process')]).length, 0);
  });

  test('give a reason for every exception', () => {
    for (const { why } of EXEMPT_FROM_BANS) assert.ok(why.length > 5);
  });
});
