// STUB_IDF is 4 as with core 2, or 5 as with core 3.
#pragma once
#define ESP_IDF_VERSION_MAJOR STUB_IDF
