/** Frames nested deeper than this are kept as text: readers of lines would choke on them. */
const DEPTH_MAX = 100

/** What `parseFrame` gives: the value, and whether the text may stand in a line as it is. */
export interface ParsedFrame {
  readonly value: unknown
  readonly embeddable: boolean
}

/** Parses a frame that no faster reader knows. `undefined` as the value: not JSON. */
export function parseFrame(text: string): ParsedFrame {
  if (nestsTooDeep(text)) return { value: undefined, embeddable: false }
  try {
    return { value: JSON.parse(text), embeddable: !text.includes('\n') && !text.includes('\r') }
  } catch {
    // Not JSON is one of the things an exchange may send (`pong`); the caller keeps the text.
    return { value: undefined, embeddable: false }
  }
}

function nestsTooDeep(text: string): boolean {
  let depth = 0
  let quoted = false
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (quoted) {
      if (code === 92) at++
      else if (code === 34) quoted = false
    } else if (code === 34) quoted = true
    else if (code === 91 || code === 123) {
      if (++depth > DEPTH_MAX) return true
    } else if (code === 93 || code === 125) depth--
  }
  return false
}

/** Any parsed value as text for logs and comparisons. Unlike `String` it never calls what a frame names `toString`. */
export function textOf(value: unknown): string {
  return typeof value === 'string' ? value : (JSON.stringify(value) ?? '')
}

/** A value as an object with unknown members; undefined for arrays, null and everything else. */
export function asObject(value: unknown): Record<string, unknown> | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : undefined
}

/**
 * The same text, on its own: a piece of 13 characters or more that was cut out of a longer text keeps all of that in
 * memory, and what a book holds may stay there for days.
 */
export function detached(text: string): string {
  return text.length < 13 ? text : ` ${text}`.slice(1)
}
