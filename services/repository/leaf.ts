import { HoldfastError } from '#contract/errors.ts';
import { ID_BYTES, LEAF_DELTA_MAX_DEPTH, SEGMENT_PAGES } from './parameters.ts';

const FULL = 1;
const DELTA = 2;
const FULL_HEADER = 8;
const FULL_RUN = 6;
const DELTA_HEADER = 12 + ID_BYTES;
const DELTA_RUN = 8;

/** Pages in a row that one chunk holds, or that are zero. */
export interface MapRun {
  readonly firstPage: number;
  readonly pages: number;
  /** 32 bytes, or `null` for zero pages. */
  readonly chunk: Buffer | null;
  /** Page inside the chunk at which the run begins. */
  readonly chunkPage: number;
}

/** What is known of a leaf without its runs: decides between delta, whole map and new chunks. */
export interface LeafFacts {
  /** Predecessors this leaf builds on. */
  readonly depth: number;
  /** Patch chunks put into the segment since it was last cut whole. */
  readonly patchChunks: number;
  /** Pages put into patch chunks since then; a page patched twice counts twice. */
  readonly patchedPages: number;
}

export const FRESH_LEAF: LeafFacts = { depth: 0, patchChunks: 0, patchedPages: 0 };

/** A segment's map: which chunk holds each page. */
export type Leaf =
  | ({ readonly type: 'full'; readonly runs: readonly MapRun[] } & LeafFacts)
  | ({ readonly type: 'delta'; readonly base: Buffer; readonly runs: readonly MapRun[] } & LeafFacts);

/** A leaf as the content of a `node` chunk, with the ids it refers to (32 bytes each). */
export function encodeLeaf(leaf: Leaf): { readonly content: Buffer; readonly children: Buffer } {
  const table = chunkTable(leaf.runs);
  const ids = Buffer.concat([...table.keys()].map((id) => Buffer.from(id, 'latin1')));
  const full = leaf.type === 'full';
  const headerBytes = full ? FULL_HEADER : DELTA_HEADER;
  const runBytes = full ? FULL_RUN : DELTA_RUN;
  const content = Buffer.alloc(headerBytes + ids.length + leaf.runs.length * runBytes);
  content[0] = full ? FULL : DELTA;
  content[1] = leaf.depth;
  content.writeUInt16LE(Math.min(leaf.patchChunks, 65_535), 2);
  content.writeUInt16LE(Math.min(leaf.patchedPages, 65_535), 4);
  content.writeUInt16LE(table.size, 6);
  if (leaf.type === 'delta') {
    content.writeUInt16LE(leaf.runs.length, 8);
    leaf.base.copy(content, 12);
  }
  ids.copy(content, headerBytes);
  let at = headerBytes + ids.length;
  for (const run of leaf.runs) {
    if (!full) at = content.writeUInt16LE(run.firstPage, at);
    at = content.writeUInt16LE(run.pages, at);
    at = content.writeUInt16LE(run.chunk === null ? 0 : table.get(run.chunk.toString('latin1'))!, at);
    at = content.writeUInt16LE(run.chunkPage, at);
  }
  return { content, children: leaf.type === 'delta' ? Buffer.concat([leaf.base, ids]) : ids };
}

/** Distinct chunk ids in order of first use → number from 1. */
function chunkTable(runs: readonly MapRun[]): Map<string, number> {
  const table = new Map<string, number>();
  for (const { chunk } of runs) {
    if (chunk === null) continue;
    const key = chunk.toString('latin1');
    if (!table.has(key)) table.set(key, table.size + 1);
  }
  return table;
}

/** Parses a leaf; throws `damaged` for anything that {@link encodeLeaf} would not have written. */
export function decodeLeaf(content: Buffer): Leaf {
  if (content.length < FULL_HEADER) throw damaged('it ends early');
  const facts = { depth: content[1]!, patchChunks: content.readUInt16LE(2), patchedPages: content.readUInt16LE(4) };
  const tableSize = content.readUInt16LE(6);
  if (content[0] === FULL) {
    if (facts.depth !== 0) throw damaged('a whole map with a depth');
    const runs = readRuns(content, FULL_HEADER, tableSize, FULL_RUN, undefined);
    return { type: 'full', ...facts, runs };
  }
  if (content[0] === DELTA) {
    if (content.length < DELTA_HEADER) throw damaged('it ends early');
    if (facts.depth < 1 || facts.depth > LEAF_DELTA_MAX_DEPTH) throw damaged(`a depth of ${facts.depth}`);
    const runs = readRuns(content, DELTA_HEADER, tableSize, DELTA_RUN, content.readUInt16LE(8));
    return { type: 'delta', ...facts, base: content.subarray(12, 12 + ID_BYTES), runs };
  }
  throw damaged(`type ${content[0]}`);
}

function readRuns(
  content: Buffer,
  tableAt: number,
  tableSize: number,
  runBytes: number,
  expected: number | undefined,
): MapRun[] {
  const runsAt = tableAt + tableSize * ID_BYTES;
  const count = (content.length - runsAt) / runBytes;
  if (count < 0 || !Number.isInteger(count) || (expected !== undefined && expected !== count))
    throw damaged('its length does not fit its header');
  const runs: MapRun[] = [];
  let page = 0;
  for (let i = 0, at = runsAt; i < count; i++, at += runBytes) {
    const explicit = runBytes === DELTA_RUN;
    const firstPage = explicit ? content.readUInt16LE(at) : page;
    const fields = explicit ? at + 2 : at;
    const pages = content.readUInt16LE(fields);
    const reference = content.readUInt16LE(fields + 2);
    if (firstPage < page || pages === 0 || firstPage + pages > SEGMENT_PAGES || reference > tableSize)
      throw damaged('a run is out of bounds');
    const idAt = tableAt + (reference - 1) * ID_BYTES;
    runs.push({
      firstPage,
      pages,
      chunk: reference === 0 ? null : content.subarray(idAt, idAt + ID_BYTES),
      chunkPage: content.readUInt16LE(fields + 4),
    });
    page = firstPage + pages;
  }
  return runs;
}

/** The runs of a whole map after the runs of a delta are laid over it. Both in order; `base` without gaps. */
export function overlayRuns(base: readonly MapRun[], over: readonly MapRun[]): MapRun[] {
  const out: MapRun[] = [];
  let at = 0; // pages settled so far
  let next = 0;
  for (const run of base) {
    const end = run.firstPage + run.pages;
    while (next < over.length && over[next]!.firstPage < end) {
      const top = over[next++]!;
      if (top.firstPage > at) append(out, slice(run, at, top.firstPage));
      append(out, top);
      at = top.firstPage + top.pages;
    }
    if (at < end) {
      append(out, slice(run, at, end));
      at = end;
    }
  }
  return out;
}

/** Appends a run, joined to the last one where it goes on in the same chunk or zeros. */
export function append(runs: MapRun[], run: MapRun): void {
  const last = runs.at(-1);
  if (last !== undefined && last.firstPage + last.pages === run.firstPage && continues(last, run)) {
    runs[runs.length - 1] = { ...last, pages: last.pages + run.pages };
  } else runs.push(run);
}

function continues(last: MapRun, run: MapRun): boolean {
  if (last.chunk === null || run.chunk === null) return last.chunk === run.chunk;
  return last.chunk.equals(run.chunk) && last.chunkPage + last.pages === run.chunkPage;
}

function slice(run: MapRun, from: number, to: number): MapRun {
  return {
    firstPage: from,
    pages: to - from,
    chunk: run.chunk,
    chunkPage: run.chunk === null ? 0 : run.chunkPage + (from - run.firstPage),
  };
}

function damaged(why: string): HoldfastError {
  return new HoldfastError('damaged', `A segment map is damaged: ${why}`);
}
