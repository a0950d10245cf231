import { HoldfastError } from '#contract/errors.ts';
import { decodeLeaf, type Leaf, type MapRun, overlayRuns } from './leaf.ts';
import { ID_BYTES, LEAF_DELTA_MAX_DEPTH, NODE_FANOUT, SEGMENT_BYTES } from './parameters.ts';

const INNER = 3;
const INNER_HEADER = 4;
const NO_CHILD = Buffer.alloc(ID_BYTES);

/** One disk's content in a point: the root of a tree of nodes. */
export interface Image {
  /** Id of the root node; `null` if the whole disk is zero. */
  readonly root: Buffer | null;
  readonly sizeBytes: number;
}

/** Reads a node chunk's content, checked against its id. */
export type ReadNode = (id: Buffer) => Promise<Buffer>;

/** Segments of a disk; the last may be short. */
export function segmentsOf(sizeBytes: number): number {
  return Math.ceil(sizeBytes / SEGMENT_BYTES);
}

/** Levels of inner nodes above the leaves: none for a disk of one segment. */
export function treeHeight(segments: number): number {
  let height = 0;
  for (let reach = 1; reach < segments; reach *= NODE_FANOUT) height++;
  return height;
}

/** An inner node's content; `ids` holds 32 bytes a child, all zero where the child's segments are. */
export function encodeInner(level: number, ids: Buffer): { readonly content: Buffer; readonly children: Buffer } {
  const content = Buffer.alloc(INNER_HEADER + ids.length);
  content[0] = INNER;
  content[1] = level;
  content.writeUInt16LE(ids.length / ID_BYTES, 2);
  ids.copy(content, INNER_HEADER);
  const children: Buffer[] = [];
  for (let at = 0; at < ids.length; at += ID_BYTES) {
    const id = ids.subarray(at, at + ID_BYTES);
    if (!id.equals(NO_CHILD)) children.push(id);
  }
  return { content, children: Buffer.concat(children) };
}

/** The child ids of an inner node at the level expected; throws `damaged`. */
export function decodeInner(content: Buffer, level: number): (Buffer | null)[] {
  const count = content.length < INNER_HEADER ? 0 : content.readUInt16LE(2);
  if (
    count === 0 ||
    count > NODE_FANOUT ||
    content[0] !== INNER ||
    content[1] !== level ||
    content.length !== INNER_HEADER + count * ID_BYTES
  ) {
    throw new HoldfastError('damaged', 'An inner node of an image is damaged: its header does not fit');
  }
  return Array.from({ length: count }, (_, i) => {
    const id = content.subarray(INNER_HEADER + i * ID_BYTES, INNER_HEADER + (i + 1) * ID_BYTES);
    return id.equals(NO_CHILD) ? null : id;
  });
}

/**
 * Builds the inner nodes over a table of leaf ids (32 bytes a segment, zero bytes for zero segments).
 * @param store  takes a node's content and the ids it refers to; answers its id
 * @returns the root, `null` if all is zero
 */
export async function buildTree(
  leafIds: Buffer,
  store: (content: Buffer, children: Buffer) => Promise<Buffer>,
): Promise<Buffer | null> {
  let ids = leafIds;
  for (let level = 1; ids.length > ID_BYTES; level++) {
    const parents: Buffer[] = [];
    for (let at = 0; at < ids.length; at += NODE_FANOUT * ID_BYTES) {
      const group = ids.subarray(at, at + NODE_FANOUT * ID_BYTES);
      const { content, children } = encodeInner(level, group);
      parents.push(children.length === 0 ? NO_CHILD : await store(content, children));
    }
    ids = Buffer.concat(parents);
  }
  return ids.length === 0 || ids.equals(NO_CHILD) ? null : Buffer.from(ids);
}

/** Leaf ids of the segments `from` ≤ s < `to`, by walking the tree; zero segments are left out. */
export async function* listLeaves(
  image: Image,
  readNode: ReadNode,
  from = 0,
  to = segmentsOf(image.sizeBytes),
): AsyncGenerator<{ readonly segment: number; readonly id: Buffer }> {
  if (image.root === null) return;
  const segments = segmentsOf(image.sizeBytes);
  const walk = async function* (
    id: Buffer,
    level: number,
    first: number,
  ): AsyncGenerator<{ segment: number; id: Buffer }> {
    if (level === 0) {
      if (first >= from && first < to) yield { segment: first, id };
      return;
    }
    const reach = NODE_FANOUT ** (level - 1);
    const children = decodeInner(await readNode(id), level);
    // A node with too few children would turn what it lacks into zeros.
    if (children.length !== Math.min(NODE_FANOUT, Math.ceil((segments - first) / reach)))
      throw new HoldfastError('damaged', `An inner node of an image is damaged: it has ${children.length} children`);
    for (let i = 0; i < children.length; i++) {
      const start = first + i * reach;
      const child = children[i];
      if (child && start < to && start + reach > from) yield* walk(child, level - 1, start);
    }
  };
  yield* walk(image.root, treeHeight(segments), 0);
}

/** A leaf with all its predecessors laid together: runs that cover the whole segment in order. */
export async function resolveLeaf(id: Buffer, readNode: ReadNode): Promise<Leaf & { readonly type: 'full' }> {
  const deltas: (Leaf & { type: 'delta' })[] = [];
  let leaf = decodeLeaf(await readNode(id));
  const facts = { depth: 0, patchChunks: leaf.patchChunks, patchedPages: leaf.patchedPages };
  while (leaf.type === 'delta') {
    deltas.push(leaf);
    const depth = leaf.depth;
    leaf = decodeLeaf(await readNode(leaf.base));
    if (leaf.depth >= depth || deltas.length > LEAF_DELTA_MAX_DEPTH)
      throw new HoldfastError('damaged', 'A segment map is damaged: its predecessors do not end');
  }
  let runs: readonly MapRun[] = leaf.runs;
  for (const delta of deltas.reverse()) runs = overlayRuns(runs, delta.runs);
  return { type: 'full', ...facts, runs };
}
