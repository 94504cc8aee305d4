import { expect } from 'vitest'
import type { Driver } from './driver.ts'

/** Numbers from 0 to 1, the same for the same seed. */
export function seeded(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}

const PIECES = [
  ...[
    '[',
    ']',
    '{',
    '}',
    ',',
    ':',
    '"',
    '-',
    '.',
    'e',
    '0',
    '9',
    ' ',
    '\n',
    '\t',
    '\\',
    'null',
    'true',
    '[[',
    ']]',
    '""'
  ],
  ...['1e400', '-0', '1e-7', '00', '\u2028', '\ud800', 'é', '__proto__', '-1', '99999999999999999999', '{}', '[]']
]

/** The text with one to three things done to it: cut, doubled, swapped, or something strange put in. */
export function mutate(text: string, random: () => number): string {
  const times = 1 + Math.floor(random() * 3)
  let result = text
  for (let n = 0; n < times; n++) {
    const at = Math.floor(random() * (result.length + 1))
    const length = Math.floor(random() * random() * 20)
    const piece = PIECES[Math.floor(random() * PIECES.length)]!
    const [front, part, back] = [result.slice(0, at), result.slice(at, at + length), result.slice(at + length)]
    const kind = Math.floor(random() * 6)
    if (kind === 0) result = front + back
    else if (kind === 1) result = front + piece + part + back
    else if (kind === 2) result = front + piece + back
    else if (kind === 3) result = front + part + part + back
    else if (kind === 4) result = result.replace(/\d+/g, number => (random() < 0.2 ? piece : number))
    else result = random() < 0.3 ? front : front + String.fromCharCode(32 + Math.floor(random() * 95)) + back.slice(1)
  }
  return result
}

/**
 * Hands a frame to an engine that must take it whatever it is. True when it stands in its line as it is, which then must be
 * JSON on one line.
 */
export function takesHostile(driver: Driver, conn: string, text: string, where: string): boolean {
  let form = ''
  expect(() => {
    form = driver.in(conn, text)
  }, where).not.toThrow()
  const messages = driver.requests.logs.map(({ message }) => message)
  expect(messages, where).not.toContain('Assertion failed in a session')
  if (form !== 'msg') {
    expect(form, where).toBe('text')
    return false
  }
  expect(text.includes('\n') || text.includes('\r'), where).toBe(false)
  expect(() => JSON.parse(`{"msg":${text}}`), where).not.toThrow()
  return true
}
