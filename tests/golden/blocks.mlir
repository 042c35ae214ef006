builtin.module {
  func.func @main(%0: tensor<1x2x9x8xf32> {qnn.name = "x"}) -> (tensor<1x6x5x2xf32> {qnn.name = "conv2d_3"}) {
    %1 = qnn.quantize %0 : tensor<1x2x9x8xf32> -> tensor<1x2x9x8x!qnn.int<8, 0.019898556172847748, -11>>
    %2 = qnn.constant dense<[[[[-1, 71, -109], [-98, -51, 36], [-3, 105, -12]], [[35, -40, -26], [-127, -88, -55], [5, 53, 80]]], [[[-92, -59, 49], [113, -28, 101], [-22, 14, 123]], [[-126, -85, -34], [-53, 117, -88], [-62, -95, -127]]], [[[-75, 110, 57], [62, 7, -65], [22, -119, -92]], [[-66, 81, 75], [-57, -5, 82], [127, 51, 17]]], [[[89, -78, 25], [-103, -92, -68], [60, 53, -78]], [[40, 73, -17], [5, 31, 82], [127, -102, -48]]]]> : tensor<4x2x3x3xi8> : tensor<4x2x3x3xi8>
    %3 = qnn.constant dense<[3.52812058e-05, 3.45873814e-05, 3.6713529e-05, 3.54601543e-05]> : tensor<4xf32> : tensor<4xf32>
    %4 = qnn.constant dense<[0.0926333219, 0.195290968, 0.205109835, 0.20797348]> : tensor<4xf32> : tensor<4xf32>
    %5 = qnn.conv2d %1, %2, %3, %4 strides <2, 2> padding <1, 1, 1, 1> : (tensor<1x2x9x8x!qnn.int<8, 0.019898556172847748, -11>>, tensor<4x2x3x3xi8>, tensor<4xf32>, tensor<4xf32>) -> tensor<1x4x5x4xf32>
    %6 = qnn.clamp %5 min <0.0> max <6.0> : tensor<1x4x5x4xf32>
    %7 = qnn.quantize %6 : tensor<1x4x5x4xf32> -> tensor<1x4x5x4x!qnn.int<8, 0.006719859782606363, -128>>
    %8 = qnn.constant dense<[[[[25, -111, 12], [-80, -119, 113], [97, -127, 24]]], [[[-30, -29, -81], [68, -105, 65], [90, 127, 66]]], [[[-127, -83, 64], [27, -100, -74], [121, 86, -56]]], [[[-34, -127, -2], [-100, -103, -7], [20, -55, 79]]]]> : tensor<4x1x3x3xi8> : tensor<4x1x3x3xi8>
    %9 = qnn.constant dense<[1.75938276e-05, 1.2626133e-05, 1.74563847e-05, 1.68013812e-05]> : tensor<4xf32> : tensor<4xf32>
    %10 = qnn.constant dense<[-0.202846378, 0.302456707, 0.228433296, -0.281094313]> : tensor<4xf32> : tensor<4xf32>
    %11 = qnn.conv2d %7, %8, %9, %10 padding <1, 1, 1, 1> groups 4 : (tensor<1x4x5x4x!qnn.int<8, 0.006719859782606363, -128>>, tensor<4x1x3x3xi8>, tensor<4xf32>, tensor<4xf32>) -> tensor<1x4x5x4xf32>
    %12 = qnn.relu %11 : tensor<1x4x5x4xf32>
    %13 = qnn.quantize %12 : tensor<1x4x5x4xf32> -> tensor<1x4x5x4x!qnn.int<8, 0.003322795731946826, -128>>
    %14 = qnn.constant dense<[[[[-127]], [[23]], [[74]], [[121]]], [[[102]], [[16]], [[-127]], [[123]]], [[[-127]], [[-78]], [[-33]], [[-64]]], [[[-54]], [[-127]], [[-33]], [[33]]]]> : tensor<4x4x1x1xi8> : tensor<4x4x1x1xi8>
    %15 = qnn.constant dense<[3.25587303e-06, 6.38302208e-06, 1.25487722e-05, 1.07221867e-05]> : tensor<4xf32> : tensor<4xf32>
    %16 = qnn.constant dense<[-0.325732887, -0.0256596804, 0.357925415, -0.051400125]> : tensor<4xf32> : tensor<4xf32>
    %17 = qnn.conv2d %13, %14, %15, %16 : (tensor<1x4x5x4x!qnn.int<8, 0.003322795731946826, -128>>, tensor<4x4x1x1xi8>, tensor<4xf32>, tensor<4xf32>) -> tensor<1x4x5x4xf32>
    %18 = qnn.dequantize %7 : tensor<1x4x5x4x!qnn.int<8, 0.006719859782606363, -128>> -> tensor<1x4x5x4xf32>
    %19 = qnn.add %18, %17 : (tensor<1x4x5x4xf32>, tensor<1x4x5x4xf32>) -> tensor<1x4x5x4xf32>
    %20 = qnn.relu %19 : tensor<1x4x5x4xf32>
    %21 = qnn.quantize %20 : tensor<1x4x5x4xf32> -> tensor<1x4x5x4x!qnn.int<8, 0.006643244065344334, -128>>
    %22 = qnn.max_pool2d %21 kernel <3, 3> padding <1, 1, 1, 1> : tensor<1x4x5x4x!qnn.int<8, 0.006643244065344334, -128>> -> tensor<1x4x5x4x!qnn.int<8, 0.006643244065344334, -128>>
    %23 = qnn.dequantize %22 : tensor<1x4x5x4x!qnn.int<8, 0.006643244065344334, -128>> -> tensor<1x4x5x4xf32>
    %24 = qnn.quantize %23 : tensor<1x4x5x4xf32> -> tensor<1x4x5x4x!qnn.int<8, 0.006643244065344334, -128>>
    %25 = qnn.concat %21, %24 axis 1 : (tensor<1x4x5x4x!qnn.int<8, 0.006643244065344334, -128>>, tensor<1x4x5x4x!qnn.int<8, 0.006643244065344334, -128>>) -> tensor<1x8x5x4x!qnn.int<8, 0.006643244065344334, -128>>
    %26 = qnn.dequantize %25 : tensor<1x8x5x4x!qnn.int<8, 0.006643244065344334, -128>> -> tensor<1x8x5x4xf32>
    %27 = qnn.quantize %26 : tensor<1x8x5x4xf32> -> tensor<1x8x5x4x!qnn.int<8, 0.006643244065344334, -128>>
    %28 = qnn.constant dense<[[[[4, -12, 27]], [[85, 127, 85]], [[127, -10, -120]], [[-63, 91, -1]]], [[[-65, -101, -123]], [[-111, -27, 72]], [[71, -127, 82]], [[-103, -28, -53]]], [[[-27, -28, -127]], [[-122, -22, 2]], [[-64, 53, -127]], [[-10, 124, -58]]], [[[127, 51, -127]], [[89, -16, -63]], [[112, -114, 15]], [[-29, 100, 39]]], [[[74, 54, -37]], [[-32, -127, 84]], [[122, 105, -109]], [[7, -109, -85]]], [[[-88, 51, -90]], [[-3, 6, 97]], [[-114, -103, -87]], [[105, -54, 127]]]]> : tensor<6x4x1x3xi8> : tensor<6x4x1x3xi8>
    %29 = qnn.constant dense<[1.43364387e-05, 1.45632202e-05, 1.35911614e-05, 1.36356257e-05, 1.24438848e-05, 1.27369403e-05]> : tensor<6xf32> : tensor<6xf32>
    %30 = qnn.constant dense<[0.104387105, 0.0365537815, -0.0021489046, -0.0570657477, 0.0362190157, -0.0659174323]> : tensor<6xf32> : tensor<6xf32>
    %31 = qnn.conv2d %27, %28, %29, %30 groups 2 : (tensor<1x8x5x4x!qnn.int<8, 0.006643244065344334, -128>>, tensor<6x4x1x3xi8>, tensor<6xf32>, tensor<6xf32>) -> tensor<1x6x5x2xf32>
    func.return %31 : tensor<1x6x5x2xf32>
  }
}
