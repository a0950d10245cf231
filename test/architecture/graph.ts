import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { build, type Plugin, transform } from 'esbuild';

/** One import. `to` is a file of the project (`isFile`) or the name of a package or builtin. */
export interface Edge {
  readonly from: string;
  readonly to: string;
  readonly isFile: boolean;
  readonly kind: 'static' | 'dynamic' | 'type';
}

/** The project as the rules see it. Paths are relative to the project's root, with slashes. */
export interface Graph {
  readonly files: readonly string[];
  readonly edges: readonly Edge[];
  /** Imports that lead nowhere. */
  readonly unresolved: readonly Edge[];
}

const SOURCE_FOLDERS = ['services', 'edge-proxy', 'web', 'cdk', 'test'];
const TYPE_MARK = '?type';

/** All TypeScript files of the project, sorted. */
export function sourceFiles(root: string): string[] {
  return SOURCE_FOLDERS.flatMap((folder) => {
    let entries: string[] = [];
    try {
      entries = readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
    return entries
      .filter((path) => /\.tsx?$/.test(path) && !path.includes('node_modules'))
      .map((path) => join(folder, path));
  }).sort();
}

/** The exact import graph, as esbuild resolves it, with the type-only imports that esbuild itself would drop. */
export async function importGraph(root: string, files: readonly string[]): Promise<Graph> {
  const edges: Edge[] = [];
  const unresolved: Edge[] = [];
  const { metafile } = await build({
    absWorkingDir: root,
    entryPoints: [...files],
    bundle: true,
    write: false,
    metafile: true,
    outdir: 'unused',
    platform: 'node',
    format: 'esm',
    packages: 'external',
    logLevel: 'silent',
    plugins: [typeImports(root, edges, unresolved)],
  });
  for (const [from, input] of Object.entries(metafile.inputs)) {
    for (const { path, kind, external } of input.imports) {
      if (path.endsWith(TYPE_MARK) || path.startsWith('unresolved:')) continue;
      edges.push({ from, to: path, isFile: external !== true, kind: kind === 'dynamic-import' ? 'dynamic' : 'static' });
    }
  }
  return { files, edges, unresolved };
}

/** Makes `import type` visible: esbuild drops it, but a room that knows another's types depends on that room. */
function typeImports(root: string, edges: Edge[], unresolved: Edge[]): Plugin {
  const own = (path: string) => relative(root, path);
  return {
    name: 'type-imports',
    setup(esbuild) {
      esbuild.onLoad({ filter: /\.tsx?$/ }, ({ path }) => ({
        contents: readFileSync(path, 'utf8').replace(
          /^(?:import|export)\s+type\s[^'";]*?\sfrom\s+(['"])([^'"]+)\1/gm,
          (_all, _quote, target) => `import '${target}${TYPE_MARK}'`,
        ),
        loader: path.endsWith('x') ? 'tsx' : 'ts',
        resolveDir: dirname(path),
      }));
      esbuild.onResolve({ filter: /./ }, async ({ path, kind, importer, resolveDir, pluginData }) => {
        if (kind === 'entry-point' || pluginData === 'asked') return undefined;
        const isType = path.endsWith(TYPE_MARK);
        const target = isType ? path.slice(0, -TYPE_MARK.length) : path;
        const found = await esbuild.resolve(target, { kind, importer, resolveDir, pluginData: 'asked' });
        const edgeKind = isType ? 'type' : kind === 'dynamic-import' ? 'dynamic' : 'static';
        if (found.errors.length > 0) {
          unresolved.push({ from: own(importer), to: target, isFile: true, kind: edgeKind });
          return { path: `unresolved:${target}`, external: true };
        }
        if (!isType) return { path: found.path, external: found.external, sideEffects: true };
        const to = found.external ? found.path : own(found.path);
        edges.push({ from: own(importer), to, isFile: !found.external, kind: 'type' });
        return { path: `${to}${TYPE_MARK}`, external: true };
      });
    },
  };
}

/**
 * Which of the given globals (`Date`, `Math.random`) a file uses, each with the text that follows it. esbuild's
 * `define` replaces true references to the global only: not types, comments, strings or a local of that name.
 */
export async function globalUses(
  source: string,
  globals: readonly string[],
): Promise<{ global: string; text: string }[]> {
  const spellings = globals.flatMap((name) => [name, `globalThis.${name}`]);
  const define = Object.fromEntries(spellings.map((name, i) => [name, `__global_${Math.floor(i / 2)}_`]));
  const { code } = await transform(source, { loader: 'ts', format: 'esm', target: 'esnext', define });
  return [...code.matchAll(/(\bnew )?__global_(\d+)_(?=(.{0,40}))/g)].map(([, isNew = '', index, tail]) => {
    const global = globals[Number(index)]!;
    return { global, text: `${isNew}${global}${tail}` };
  });
}
