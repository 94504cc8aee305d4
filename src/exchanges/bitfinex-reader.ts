import { isDecimal, priceKey } from '../core/decimal.ts'

/** A short string without escapes. */
const OTHER_CELL = /^"[\w .:-]*"/

/** A channel frame after reading: cells are number texts, `width` to a row. Reused for every frame. */
export class ChannelFrame {
  channel = 0
  tag = ''
  readonly cells: string[] = []
  width = 0
  rows = 0
  nested = false
  /** The numbers that stand after the payload: value of a `cs`, sequence, time. */
  readonly tail: number[] = []
}

/** Reads channel frames without building values: `[CHAN, payload, …numbers]`. Anything else makes `read` false. */
export class ChannelReader {
  readonly frame = new ChannelFrame()
  private text = ''
  private at = 0

  /** Reads a frame into `frame`. */
  read(text: string): boolean {
    const frame = this.frame
    this.text = text
    this.at = 0
    frame.tag = ''
    frame.width = frame.rows = frame.cells.length = frame.tail.length = 0
    frame.nested = false
    if (this.next() !== 91) return false
    this.at++
    this.next()
    const channel = this.number()
    if (channel === undefined || this.next() !== 44) return false
    frame.channel = Number(channel)
    this.at++
    if (!this.payload()) return false
    while (this.next() === 44) {
      this.at++
      const code = this.next()
      if (code === 91 && frame.tag !== '' && frame.rows === 0) {
        if (!this.row()) return false
      } else {
        const value = this.number()
        if (value === undefined) return false
        frame.tail.push(Number(value))
      }
    }
    if (this.next() !== 93) return false
    this.at++
    return Number.isNaN(this.next())
  }

  /** The next code that is not white space, without going past it. NaN at the end. */
  private next(): number {
    let code = this.text.charCodeAt(this.at)
    while (code === 32 || code === 9 || code === 10 || code === 13) code = this.text.charCodeAt(++this.at)
    return code
  }

  private payload(): boolean {
    const code = this.next()
    if (code === 34) {
      const end = this.text.indexOf('"', this.at + 1)
      if (end < 0 || end - this.at > 8) return false
      const tag = this.text.slice(this.at + 1, end)
      this.at = end + 1
      this.frame.tag = tag
      return /^[a-z]+$/.test(tag)
    }
    if (code !== 91) return false
    const start = this.at
    this.at++
    const inner = this.next()
    if (inner === 93) {
      this.at++
      this.frame.nested = true
      return true
    }
    if (inner !== 91) {
      this.at = start
      return this.row()
    }
    this.frame.nested = true
    for (;;) {
      if (this.next() !== 91 || !this.row()) return false
      const after = this.next()
      this.at++
      if (after === 93) return true
      if (after !== 44) return false
    }
  }

  private row(): boolean {
    const frame = this.frame
    const before = frame.cells.length
    this.at++
    for (;;) {
      this.next()
      const value = this.number() ?? this.otherCell()
      if (value === undefined) return false
      frame.cells.push(value)
      const after = this.next()
      this.at++
      if (after === 93) break
      if (after !== 44) return false
    }
    const width = frame.cells.length - before
    if (frame.rows > 0 && width !== frame.width) return false
    frame.width = width
    frame.rows++
    return true
  }

  /** What a row may hold besides numbers: nothing that we use, but no reason to call the frame unreadable. */
  private otherCell(): string | undefined {
    if (this.text.startsWith('null', this.at)) {
      this.at += 4
      return 'null'
    }
    const match = OTHER_CELL.exec(this.text.slice(this.at, this.at + 100))
    if (match) this.at += match[0].length
    return match?.[0]
  }

  /** The text of a JSON number. */
  private number(): string | undefined {
    const text = this.text
    const start = this.at
    let at = start
    let code = text.charCodeAt(at)
    if (code === 45) code = text.charCodeAt(++at)
    const first = at
    while (code >= 48 && code <= 57) code = text.charCodeAt(++at)
    if (at === first || (text.charCodeAt(first) === 48 && at - first > 1)) return undefined
    if (code === 46) {
      const point = ++at
      code = text.charCodeAt(at)
      while (code >= 48 && code <= 57) code = text.charCodeAt(++at)
      if (at === point) return undefined
    }
    if (code === 101 || code === 69) {
      code = text.charCodeAt(++at)
      if (code === 43 || code === 45) code = text.charCodeAt(++at)
      const exponent = at
      while (code >= 48 && code <= 57) code = text.charCodeAt(++at)
      if (at === exponent) return undefined
    }
    this.at = at
    return text.slice(start, at)
  }
}

/** Whether a cell is a number without a sign: an id. */
export function isId(text: string): boolean {
  const code = text.charCodeAt(0)
  return code >= 48 && code <= 57
}

/** Whether a cell is a whole number without a sign. */
export function isWhole(text: string): boolean {
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code < 48 || code > 57) return false
  }
  return text.length > 0
}

/** Whether a cell is a price that a book can hold. */
export function isPrice(text: string): boolean {
  return !Number.isNaN(priceKey(text)) && isDecimal(text)
}
