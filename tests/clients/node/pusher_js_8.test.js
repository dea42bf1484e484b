import { tellAll } from './stories/all.js';

await tellAll('pusher-js');
