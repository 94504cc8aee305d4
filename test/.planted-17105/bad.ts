import { wait } from './clean.ts'

if (wait()) console.log('always')
