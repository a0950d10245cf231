/** The fixed sizes of format version 1. Changing any of these is a new format version: see docs/format.md. */

export const FORMAT_VERSION = 1;

/** A page is the unit of change: 4 KiB of disk. A disk's last page may be shorter. */
export const PAGE_BYTES = 4096;
/** A segment is the unit of mapping: 16 MiB of disk. Chunks never cross one. */
export const SEGMENT_PAGES = 4096;
export const SEGMENT_BYTES = SEGMENT_PAGES * PAGE_BYTES;

/** A chunk ends where the cut rule says, within these bounds, in pages. */
export const CHUNK_MIN_PAGES = 8;
export const CHUNK_MAX_PAGES = 128;
/** Past the minimum, a page ends a chunk with probability 1/24: chunks of 32 pages (128 KiB) on average. */
export const CUT_THRESHOLD = Math.floor(2 ** 32 / 24);
/** This many zero pages in a row end a chunk and are stored as a run of the map; fewer stay inside chunks. */
export const ZERO_RUN_MIN_PAGES = 16;

/** A leaf map may build on this many predecessors before it is written whole. */
export const LEAF_DELTA_MAX_DEPTH = 8;
/** Children of an inner node. */
export const NODE_FANOUT = 256;

export const ID_BYTES = 32;
export const HASH_BYTES = 32;
/** Bytes of an id that the index holds. 2⁻⁶⁴ of colliding among 2³² chunks. */
export const PREFIX_BYTES = 16;
/** Bytes of a page hash that a fingerprint keeps. */
export const FINGERPRINT_BYTES = 16;

export const PACK_MAX_BYTES = 64 * 1024 * 1024;
/** An index slot number is 16 bits wide. */
export const PACK_MAX_SLOTS = 65_535;
